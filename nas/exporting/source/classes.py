"""Classes: which methods and attributes of a class a network needs, and what its docstring says."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, NamedTuple

from nas.exporting.source import types
from nas.exporting.source.edits import INDENT, Edits, Wrapped, quoted
from nas.exporting.source.files import Definition, SourceFile
from nas.exporting.source.needs import Needs
from nas.exporting.source.shaping import Shaper
from nas.ops.base import Operator
from nas.ops.tokens import Tokens

if TYPE_CHECKING:
    from nas.exporting.source.bundle import Bundle

SEARCH_ONLY = frozenset(
    {"cost", "rule", "without_effect", "out", "heads_of", "unit_left", "share", "init", "fuse", "reset"}
)
INHERITED = ("residual", "restores", "where")  # attributes of operators that blocks read
BY_POSITION = frozenset(tuple(Tokens.__dataclass_fields__)[:5])  # fields of the token state that are given so


class Override(NamedTuple):
    """What a class has instead: a docstring, and methods (texts at one level of indentation) in place of its own."""

    docstring: str
    methods: dict[str, str]


class ClassShaper:
    """Shapes one class; edits and needs are the caller's."""

    def __init__(self, bundle: Bundle, found: Definition, node: ast.ClassDef, edits: Edits, needs: Needs):
        self.bundle, self.found, self.node, self.edits, self.needs = bundle, found, node, edits, needs
        self.file = found.file
        real = found.file.real(node.name)
        assert isinstance(real, type)
        self.real = real
        self.is_operator = issubclass(real, Operator)
        self.override = bundle.overrides.get(found)
        self.own: set[str] = set()  # attributes of self that its methods read

    def shape(self) -> None:
        head = self._shaper()
        for base in self.node.bases:
            types.annotation(head, base) if self.is_operator else head.visit(base)
        for decorator in self.node.decorator_list:
            head.visit(decorator)
        self.needs.add(head.needs)
        self.bundle.rename(self.found, self.node, self.edits)
        methods = [s for s in self.node.body if isinstance(s, ast.FunctionDef)]
        kept: set[str] = set()
        size = -1
        while size != (size := len(self.own)):
            for method in methods:
                if method.name not in kept and self._keeps(method.name):
                    kept.add(method.name)
                    self._method(method)
        self._docstring()
        self._attributes()
        for method in methods:
            if method.name not in kept:
                self.edits.delete_lines(self.file.first_line(method), method.end_lineno or 0)

    def _shaper(self) -> Shaper:
        return Shaper(self.file, self.bundle.facts(self.file, []), self.edits, self.bundle.names, lambda call: None)

    def _keeps(self, name: str) -> bool:
        if name == "forward" or (name.startswith("__") and name.endswith("__")):
            return True
        if name in self.own or (self.override is not None and name in self.override.methods):
            return True
        return name in self.bundle.all.attributes and not (self.is_operator and name in SEARCH_ONLY)

    def _method(self, node: ast.FunctionDef) -> None:
        if self.override is not None and node.name in self.override.methods:
            first = self.file.first_line(node)
            self.edits.delete_lines(first, node.end_lineno or 0)
            self.edits.insert(self.file.starts[first - 1], self.override.methods[node.name].rstrip() + "\n")
            return
        cut = node.name == "__init__" and self.is_operator
        needs = self.bundle.function(self.found, node, self.edits, self.needs, self.found, cut).needs
        self.bundle.methods[self.found, node.name] = needs
        self.own |= needs.own
        unread = {a.arg for a in node.args.kwonlyargs if a.arg not in needs.loads}
        if cut and unread:
            _cut_signature(self.file, node, self.edits, unread)

    def _docstring(self) -> None:
        """The docstring, of operators that of their file, and attributes that only a base class had."""
        node, written = self.node, ast.get_docstring(self.node, clean=False) is not None
        text = self.override.docstring or None if self.override else None
        if text is None and self.is_operator and not written:
            text = ast.get_docstring(self.file.tree, clean=False)
        below = node.body[0].end_lineno or 0 if written else self.file.first_line(node.body[0]) - 1
        place = self.file.starts[below]
        if text is not None:
            if written:
                self.edits.delete_lines(node.body[0].lineno, below)
            self.edits.insert(place, quoted(text, INDENT) + "\n")
        for name in INHERITED if self.is_operator else ():
            if name in self.bundle.all.attributes and name not in vars(self.real):
                value = getattr(self.real, name, None)  # not every kind has each
                if value is not None:
                    self.edits.insert(place, f"    {name} = {value!r}\n".replace("'", '"'))

    def _attributes(self) -> None:
        for statement in self.node.body:
            if not isinstance(statement, ast.Assign | ast.AnnAssign):
                continue
            names = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            if self._keeps_attribute(names):
                shaper = self._shaper()
                shaper.statement(statement)
                self.needs.add(shaper.needs)
            else:
                self.edits.delete_lines(self.file.first_line(statement), statement.end_lineno or 0)

    def _keeps_attribute(self, names: set[str]) -> bool:
        read = self.bundle.all.attributes
        if self.real is Tokens:
            return bool(names & (BY_POSITION | read | self.bundle.all.keywords | self.own))
        if self.is_operator:
            return bool(names & self.own) or bool(names & read & set(INHERITED))
        return _is_record(self.node) or bool(names & (self.own | read))


def _is_record(node: ast.ClassDef) -> bool:
    bases = {ast.unparse(base) for base in node.bases}
    return "NamedTuple" in bases or any("dataclass" in ast.unparse(d) for d in node.decorator_list)


def _cut_signature(file: SourceFile, node: ast.FunctionDef, edits: Edits, unread: set[str]) -> None:
    """Write the signature without these keyword-only arguments."""
    items = [file.segment(a) for a in node.args.args]
    given = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    kept = [file.segment(a) + (f" = {file.segment(d)}" if d else "") for a, d in given if a.arg not in unread]
    items += ["*", *kept] if kept else []
    start, stop = file.starts[node.lineno - 1], file.starts[file.first_line(node.body[0]) - 1]
    edits.delete(start, stop)
    edits.insert(start, Wrapped(f"def {node.name}(", items, "):").at(node.col_offset) + "\n")
