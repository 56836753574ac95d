"""Shaping: one function, class or constant of the source, less what this network never runs.

What is left is the source's own text, comments and docstrings included. Tests that facts decide are folded, calls of
modules and methods that only hand their input on are replaced by it, assertions and locals that nobody reads go, and
what is left says which other names, attributes and methods are needed.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

from nas.exporting.source import arrays, types
from nas.exporting.source.edits import Edits
from nas.exporting.source.facts import Facts
from nas.exporting.source.files import Definition, External, SourceFile
from nas.exporting.source.needs import Needs

SITE_PARTS = {"grid": ("height", "width"), "rows": ("tokens", "prefix")}  # properties of a site, and what they read
ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)
Shortcut = Callable[[ast.Call], ast.expr | None]  # what a call only hands on


class Shaper:
    """Walks what survives of a piece of syntax, and keeps edits and needs.

    names    how definitions are called in the new text
    handed   what a call only hands on, where it does
    dead     locals whose assignments go
    """

    def __init__(
        self,
        file: SourceFile,
        facts: Facts,
        edits: Edits,
        names: dict[tuple[Definition, str], str],
        handed: Shortcut,
        dead: frozenset[str] = frozenset(),
    ):
        self.file, self.facts, self.edits, self.names, self.handed, self.dead = file, facts, edits, names, handed, dead
        self.needs = Needs()
        self.left: list[ast.stmt] = []  # statements that survive at the top of the function
        self.count = 0  # all that survive

    # Statements

    def block(self, statements: list[ast.stmt], top: bool = False) -> bool:
        """Shape a block; whether it ends the function (or loop) for certain."""
        ended = False
        for statement in statements:
            if ended:
                self._drop(statement)
            else:
                ended = self.statement(statement, top)
        return ended

    def statement(self, node: ast.stmt, top: bool = False) -> bool:
        match node:
            case ast.If():
                return self._if(node, top)
            case ast.Assert():
                self._drop(node)
                return False
            case ast.Assign(targets=[ast.Name(id=name)]):
                left = self.simplified(node.value)
                if name in self.dead or (isinstance(left, ast.Name) and left.id == name):
                    self._drop(node)
                    return False
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)) if len(names) == len(values):
                unread = [isinstance(name, ast.Name) and name.id in self.dead for name in names]
                if all(unread):
                    self._drop(node)
                    return False
                if any(unread):
                    self._pair_off(names, values, unread)
                    return False
        if top:
            self.left.append(node)
        self.count += 1
        match node:
            case ast.For():
                for part in (node.target, node.iter):
                    self.visit(part)
                self.block(node.body)
            case ast.With():
                for item in node.items:
                    self.visit(item)
                return self.block(node.body)
            case ast.AnnAssign():
                types.annotation(self, node.annotation)
                self.visit(node.target)
                if node.value is not None:
                    self.visit(node.value)
            case _:
                for child in ast.iter_child_nodes(node):
                    self.visit(child)
        return isinstance(node, ENDS)

    def _pair_off(self, names: list[ast.expr], values: list[ast.expr], unread: list[bool]) -> None:
        """Take the unread names of an assignment of several, and their values, out of it."""
        self.count += 1
        for parts in (names, values):
            self.edits.thin([self.file.bracketed(part) for part in parts], unread)
            for part, gone in zip(parts, unread, strict=True):
                if not gone:
                    self.visit(part)

    def _drop(self, node: ast.stmt) -> None:
        last = node.end_lineno or node.lineno
        self.edits.delete_lines(self.file.first_line(node), last)

    def _if(self, node: ast.If, top: bool, leads: bool = True) -> bool:
        """`leads`: it is written `if`, or is to be; else it is an `elif` under an `if` that stays."""
        outcome = self.facts.decide(node.test)
        if outcome is None:
            return self._open_if(node, top)
        kept, last = node.body if outcome else node.orelse, node.end_lineno or node.lineno
        if not kept:
            self._drop(node)
            return False
        if outcome is False and self._is_elif(kept[0]):
            assert isinstance(kept[0], ast.If)
            self.edits.delete_lines(self.file.first_line(node), kept[0].lineno - 1)
            if leads:
                start = self.file.start(kept[0])
                self.edits.delete(start, start + 2)  # elif becomes if
            return self._if(kept[0], top, leads)
        begin, end = self.file.first_line(kept[0]), kept[-1].end_lineno or last
        self.edits.delete_lines(end + 1, last)
        if leads:
            self.edits.delete_lines(self.file.first_line(node), begin - 1)
            self.edits.dedent(begin, end)
        elif outcome:  # an elif that always holds
            start = self.file.start(node)
            self.edits.delete(start, self.file.end(node.test))
            self.edits.insert(start, "else")
        else:
            self.edits.delete_lines(self.file.first_line(node), begin - 2)
        return self.block(kept, top and leads)

    def _open_if(self, node: ast.If, top: bool) -> bool:
        """An `if` whose outcome differs."""
        if top:
            self.left.append(node)
        self.count += 1
        self._condition(node.test)
        before = self.count
        ended = self.block(node.body)
        if self.count == before:
            self.edits.insert(self.file.starts[node.body[0].lineno - 1], " " * node.body[0].col_offset + "pass\n")
        if len(node.orelse) == 1 and self._is_elif(node.orelse[0]):
            assert isinstance(node.orelse[0], ast.If)
            return self._if(node.orelse[0], False, leads=False) and ended
        return self.block(node.orelse) and ended and bool(node.orelse)

    def _is_elif(self, node: ast.stmt) -> bool:
        return isinstance(node, ast.If) and self.file.text.startswith("elif", self.file.start(node))

    def _condition(self, test: ast.expr) -> None:
        """A test that is not decided, less the parts of it that are."""
        if not isinstance(test, ast.BoolOp):
            self.visit(test)
            return
        left = [part for part in test.values if self.facts.decide(part) is None] or test.values
        self.edits.thin([self.file.bracketed(part) for part in test.values], [part not in left for part in test.values])
        for part in left:
            self.visit(part)

    # Expressions

    def simplified(self, node: ast.expr) -> ast.expr:
        """The expression that is left of a chosen branch, or of a call that hands its input on."""
        if isinstance(node, ast.IfExp):
            outcome = self.facts.decide(node.test)
            if outcome is not None:
                return self.simplified(node.body if outcome else node.orelse)
        if isinstance(node, ast.Call):
            inner = self.handed(node)
            if inner is not None:
                return self.simplified(inner)
        return node

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.expr):
            left = self.simplified(node)
            if left is not node:
                self.shrink(node, left)
                node = left
        match node:
            case ast.Name():
                self._name(node)
            case ast.Attribute():
                self._attribute(node)
            case ast.Call():
                self._call(node)
            case ast.IfExp():
                self.visit(node.body)
                self._condition(node.test)
                self.visit(node.orelse)
            case ast.Constant(value=str(text)):
                self.needs.strings.add(text)
            case ast.arguments():
                types.arguments(self, node)
            case ast.JoinedStr():  # its parts have no true places in Python 3.11
                self.needs.loads |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            case ast.stmt():
                self.statement(node)
            case _:
                for child in ast.iter_child_nodes(node):
                    self.visit(child)

    def shrink(self, node: ast.expr, left: ast.expr) -> None:
        start, end = self.file.start(left), self.file.end(left)
        simple = isinstance(left, ast.Name | ast.Attribute | ast.Call | ast.Constant | ast.Subscript | ast.Tuple)
        if isinstance(node, ast.Call) and not simple:
            self.edits.insert(start, "(")
            self.edits.insert(end, ")")
        self.edits.delete(self.file.start(node), start)
        self.edits.delete(end, self.file.end(node))

    def _name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.needs.loads.add(node.id)
            if node.id == "site":
                self.needs.site.add("*")
        if node.id in self.needs.locals:
            return
        found = self.file.resolve(node.id)
        if isinstance(found, Definition):
            name = self.file.imported[node.id].name if node.id in self.file.imported else node.id
            self.refer(node, found, name or node.id)
        elif isinstance(found, External):
            self.needs.externals.add(found)

    def refer(self, node: ast.AST, found: Definition, name: str) -> None:
        self.needs.definitions.add(found)
        self.needs.made.add(found)
        new = self.names.get((found, name), name)
        if self.file.segment(node) != new:
            self.edits.replace(node, new)

    def _attribute(self, node: ast.Attribute) -> None:
        base = node.value
        if isinstance(base, ast.Name) and base.id == "site":
            self.needs.attributes.add(node.attr)
            self.needs.site.update(SITE_PARTS.get(node.attr, (node.attr,)))
            self.needs.loads.add("site")
            return
        if isinstance(base, ast.Name) and base.id not in self.needs.locals:
            found = self.file.resolve(base.id)
            if isinstance(found, SourceFile):
                inner = found.resolve(node.attr)
                assert isinstance(inner, Definition), f"{found.module}.{node.attr}"
                self.refer(node, inner, node.attr)
                return
            if isinstance(found, External):
                if found.module == "numpy":
                    arrays.attribute(self, node)
                else:
                    self.needs.externals.add(found)
                return
        if isinstance(base, ast.Name) and base.id == "self":
            if isinstance(node.ctx, ast.Load):
                self.needs.own.add(node.attr)
            return
        self.needs.attributes.add(node.attr)
        self.visit(base)

    def _call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func)
        if name == "self.embed.out":  # the grid that it leaves is that of the stage
            self.edits.replace(node, "self.grid")
            self.needs.own.add("grid")
            return
        if arrays.is_array(self, node.func):
            arrays.call(self, node)
            return
        self.visit(node.func)
        arrays.method(self, node)
        for argument in node.args:
            self.visit(argument)
        gone = [False for _ in node.args]
        for keyword in node.keywords:
            gone.append(self._sets_nothing(name, keyword))
            if not gone[-1]:
                self.visit(keyword.value)
        items: list[ast.expr | ast.keyword] = [*node.args, *node.keywords]
        self.edits.thin([(self.file.start(item), self.file.end(item)) for item in items], gone)

    def _sets_nothing(self, name: str, keyword: ast.keyword) -> bool:
        """Whether it gives None to a field of the token state that is always None."""
        if keyword.arg is None or not (name in ("Tokens", "cls") or name.endswith(".replace")):
            return False
        if isinstance(self.simplified(keyword.value), ast.Constant) and keyword.arg in self.facts.unset:
            return True
        self.needs.keywords.add(keyword.arg)
        return False
