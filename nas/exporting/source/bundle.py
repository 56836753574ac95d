"""Bundle: from the classes of one network to the pieces of source that it runs, each shaped to it.

It begins with nothing but the classes, and goes on until no piece refers to another that is missing. What is known of
the network (which fields are set, which classes have instances) only grows on the way, so the order does not matter.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable
from functools import cache
from typing import Any

from torch import nn

from nas.exporting.source import types
from nas.exporting.source.classes import ClassShaper, Override
from nas.exporting.source.edits import Edits
from nas.exporting.source.facts import STATE, TEXT, VALUES, Facts, Settled
from nas.exporting.source.files import OWN, Definition, SourceFile, source_file
from nas.exporting.source.needs import Needs, local_names
from nas.exporting.source.shaping import Shaper
from nas.ops.parts.drop import DropPath
from nas.ops.tokens import Tokens

STATE_FIELDS = tuple(Tokens.__dataclass_fields__)


class Bundle:
    """The pieces of source that the modules of a network need.

    arguments  the arguments of each module that is an operator
    overrides  classes (by definition) whose methods stand in for the source's
    roots      further definitions that are wanted, and attributes that are read from outside
    """

    def __init__(
        self,
        network: nn.Module,
        arguments: dict[nn.Module, dict[str, Any]],
        overrides: dict[Definition, Override],
        roots: Iterable[Definition],
        attributes: Iterable[str],
        joined: bool,
    ):
        self.modules = list(network.modules())
        self.arguments, self.overrides, self.joined = arguments, overrides, joined
        classes = dict.fromkeys(type(module) for module in self.modules)
        self.wanted = [found for cls in classes if (found := definition_of(cls)) is not None]
        self.wanted += [found for found in roots if found not in self.wanted]
        self.names: dict[tuple[Definition, str], str] = {}
        self.of: dict[Definition, Needs] = {found: Needs() for found in self.wanted}
        self.methods: dict[tuple[Definition, str], Needs] = {}
        self.given: set[str] = set()  # fields of the token state that some operator sets
        self._returned: dict[tuple[Definition, str], str | None] = {}
        self.all = Needs(made=set(self.wanted), attributes=set(attributes))
        for given in arguments.values():
            self.all.strings |= {value for value in given.values() if isinstance(value, str)}
        self._close()

    def _close(self) -> None:
        """Shape everything again and again until nothing is added."""
        size = -1
        while size != (size := _size(self.all) + len(self.given)):
            self._returned.clear()
            for found in list(self.of):
                self._shape(found)
                self.all.add(self.of[found])
                if found.file.module != Tokens.__module__:  # its own methods only keep what is there
                    self.given |= self.of[found].keywords
            for found in sorted(self.all.definitions - self.of.keys(), key=_order):
                self.of[found] = Needs()

    def require(self, found: Definition) -> None:
        """A further definition that is wanted."""
        self.of.setdefault(found, Needs())
        self._close()

    def unset(self) -> frozenset[str]:
        """Fields of the token state that are None in every pass."""
        given = self.given | ({"index"} if "select" in self.all.attributes else set())
        return frozenset(STATE_FIELDS[5:]) - given - {"proportional", "carry", "previous", "running"}

    # Texts

    def text(self, found: Definition) -> str:
        """The shaped text of a definition."""
        first, last = found.file.first_line(found.node), found.node.end_lineno or found.line
        return self._shape(found).apply(found.file.starts[first - 1], found.file.starts[last]).rstrip() + "\n"

    def _shape(self, found: Definition) -> Edits:
        """The edits of a definition; its needs are kept in `of`."""
        node, file = found.node, found.file
        edits, needs = Edits(file), Needs()
        if isinstance(node, ast.FunctionDef):
            self.rename(found, node, edits)
            self.function(found, node, edits, needs, None)
        elif isinstance(node, ast.ClassDef):
            ClassShaper(self, found, node, edits, needs).shape()
        else:
            self._constant(found, node, edits, needs)
        self.of[found] = needs
        return edits

    def facts(self, file: SourceFile, cases: list[dict[str, Any]]) -> Facts:
        return Facts(file, cases, self.unset(), self.joined, self.all.made)

    def _cases(self, cls: Definition | None, node: ast.FunctionDef) -> list[dict[str, Any]]:
        """What the names of a function stand for, in each module that runs it."""
        given: dict[str, Any] = {}
        for argument in (*node.args.args, *node.args.kwonlyargs):
            kind = "" if argument.annotation is None else ast.unparse(argument.annotation)
            given |= {argument.arg: STATE} if kind == "Tokens" else {}
            given |= {argument.arg: TEXT} if kind == "Spec | str" else {}
        if cls is None:
            return [given]
        real = cls.file.real(cls.names[0])
        if real is Tokens:
            return [given | {"self": STATE}]
        assert isinstance(real, type)
        stored = local_stores(node)
        cases = []
        for module in self.modules:
            if isinstance(module, real):
                case = given | {"self": module}
                if node.name == "__init__":
                    arguments = self.arguments.get(module, {})
                    case |= {"self": _settled(module, node)} | {k: v for k, v in arguments.items() if k not in stored}
                cases.append(case)
        return cases or [given]

    def function(
        self,
        found: Definition,
        node: ast.FunctionDef,
        edits: Edits,
        needs: Needs,
        cls: Definition | None,
        cut: bool = False,
    ) -> Shaper:
        """Shape a function or method, once more for every local that turns out to be read nowhere."""
        dead: frozenset[str] = frozenset()
        facts = self.facts(found.file, self._cases(cls, node))
        while True:
            trial = Edits(found.file)
            shaper = Shaper(found.file, facts, trial, self.names, lambda call: self._handed(call, facts, cls), dead)
            shaper.needs.locals |= local_names(node)
            for decorator in node.decorator_list:
                shaper.visit(decorator)
            types.annotation(shaper, node.returns)
            shaper.block(node.body, top=True)
            unread_knobs = {a.arg for a in node.args.kwonlyargs if a.arg not in shaper.needs.loads} if cut else set()
            types.arguments(shaper, node.args, unread_knobs)
            unread = _plain_stores(node) - shaper.needs.loads
            if unread <= dead:
                break
            dead |= unread
        edits.take(trial)
        needs.add(shaper.needs)
        return shaper

    def _constant(self, found: Definition, node: ast.stmt, edits: Edits, needs: Needs) -> None:
        shaper = Shaper(found.file, self.facts(found.file, []), edits, self.names, lambda call: None)
        value = getattr(node, "value", None)
        if isinstance(value, ast.Dict) and isinstance(node, ast.AnnAssign):
            self._table(value, edits, shaper)
        elif isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr):
            types.annotation(shaper, value)
        elif value is not None:
            shaper.visit(value)
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            shaper.visit(target)
        types.annotation(shaper, getattr(node, "annotation", None))
        needs.add(shaper.needs)

    def _table(self, node: ast.Dict, edits: Edits, shaper: Shaper) -> None:
        """A table by name keeps the entries whose names are written somewhere."""
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value not in self.all.strings and key.lineno > node.lineno:
                edits.delete_lines(key.lineno, value.end_lineno or value.lineno)
            else:
                shaper.visit(value)

    def rename(self, found: Definition, node: ast.ClassDef | ast.FunctionDef, edits: Edits) -> None:
        """Call a class or function by its new name where it is defined."""
        new = self.names.get((found, node.name), node.name)
        if new != node.name:
            start = found.file.start(node) + len("class " if isinstance(node, ast.ClassDef) else "def ")
            edits.delete(start, start + len(node.name))
            edits.insert(start, new)

    # What calls hand on

    def _handed(self, node: ast.Call, facts: Facts, cls: Definition | None) -> ast.expr | None:
        """The argument that a call of an identity module, or of a method that only returns it, hands on."""
        if not isinstance(node.func, ast.Attribute) or any(isinstance(a, ast.Starred) for a in node.args):
            return None
        if len(node.args) == 1 and not node.keywords and facts.same(node.func, _is_identity):
            return node.args[0]
        method = self._method_of(node.func, facts, cls)
        if method is None or node.keywords:
            return None
        returned, names = self._returns(*method), [argument.arg for argument in method[1].args.args[1:]]
        return node.args[names.index(returned)] if returned and len(node.args) == len(names) else None

    def _returns(self, found: Definition, node: ast.FunctionDef) -> str | None:
        """The argument that a method returns as it came, where that is all it does."""
        key = (found, node.name)
        if key not in self._returned:
            self._returned[key] = None  # of one that calls itself
            left = self.function(found, node, Edits(found.file), Needs(), found).left
            left = [s for s in left if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            if len(left) == 1 and isinstance(left[0], ast.Return) and isinstance(left[0].value, ast.Name):
                names = {argument.arg for argument in node.args.args[1:]} - local_stores(node)
                self._returned[key] = left[0].value.id if left[0].value.id in names else None
        return self._returned[key]

    def _method_of(
        self, node: ast.Attribute, facts: Facts, cls: Definition | None
    ) -> tuple[Definition, ast.FunctionDef] | None:
        """The method that is called, where it is one of the token state or the block's own."""
        if not isinstance(node.value, ast.Name):
            return None
        if facts.same(node.value, lambda value: value is STATE):
            cls = definition_of(Tokens)
        elif node.value.id != "self":
            return None
        if cls is None or not isinstance(cls.node, ast.ClassDef):
            return None
        override = self.overrides.get(cls)
        found = [s for s in cls.node.body if isinstance(s, ast.FunctionDef) and s.name == node.attr]
        if not found or found[0].decorator_list or (override is not None and node.attr in override.methods):
            return None
        return cls, found[0]


def definition_of(cls: type) -> Definition | None:
    """Where a class of this project, or of a user's operators, is defined."""
    if cls.__module__.partition(".")[0] not in OWN:
        return None
    found = source_file(cls.__module__).resolve(cls.__name__)
    assert isinstance(found, Definition)
    return found


@cache
def local_stores(node: ast.FunctionDef) -> frozenset[str]:
    """Names that a function's body binds."""
    return frozenset(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


def _settled(module: nn.Module, node: ast.FunctionDef) -> Settled:
    """Attributes that a constructor sets once, to plain values."""
    found = {name: getattr(module, name, ...) for name in _stored_once(node)}
    return Settled({name: value for name, value in found.items() if isinstance(value, VALUES)})


@cache
def _stored_once(node: ast.FunctionDef) -> tuple[str, ...]:
    """Attributes that a function sets in one place."""
    stores = Counter(n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store))
    return tuple(name for name, count in stores.items() if count == 1)


@cache
def _plain_stores(node: ast.FunctionDef) -> frozenset[str]:
    """Locals that assignments bind, one by one."""
    assigns = [s for s in ast.walk(node) if isinstance(s, ast.Assign) and len(s.targets) == 1]
    targets = [s.targets[0] for s in assigns]
    both = [s.targets[0] for s in assigns if isinstance(s.value, ast.Tuple)]
    parts = [*targets, *(part for target in both if isinstance(target, ast.Tuple) for part in target.elts)]
    return frozenset(part.id for part in parts if isinstance(part, ast.Name))


def _is_identity(module: Any) -> bool:
    return isinstance(module, nn.Identity) or (isinstance(module, DropPath) and module.rate == 0)


def _order(found: Definition) -> tuple[str, int]:
    return found.file.module, found.line


def _size(needs: Needs) -> int:
    return sum(len(part) for part in vars(needs).values() if isinstance(part, set))
