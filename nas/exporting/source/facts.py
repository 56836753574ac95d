"""Facts: what is the same in every pass of one network, so that a test in the source is decided and a branch goes.

Known are the values that its modules hold, the arguments of its operators, and which fields of the token state are ever
set. Never decided is what a user may change: `training`.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from torch import nn

from nas.exporting.source.files import Definition, SourceFile

COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
COUNTS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
BUILTIN: dict[str, Callable[..., Any]] = {"any": any, "all": all, "len": len, "max": max, "min": min, "bool": bool}
VALUES = (bool, int, float, str, type(None), tuple)
PLAIN = (*VALUES, list, dict, nn.Module)
STATE, TEXT = object(), object()  # a token state, and a string that is not known


class Unknown(Exception):
    """Not the same in every pass."""


class Settled(dict[str, Any]):
    """What is known of `self` within its constructor: attributes that are set once, to plain values."""


class Absent(Exception):
    """An instance that has no such attribute never gets here."""


class Facts:
    """What one function may rely on.

    cases  the values of names, one dict for each module (or call) that runs it; none: nothing is known
    unset  fields of the token state that are never set
    joined whether prefix tokens ever join
    made   own classes of which there are instances
    """

    def __init__(
        self, file: SourceFile, cases: list[dict[str, Any]], unset: frozenset[str], joined: bool, made: set[Definition]
    ):
        self.file = file
        self.cases = cases or [{}]
        self.unset = unset
        self.joined = joined
        self.made = made
        self._decided: dict[ast.expr, bool | None] = {}

    def decide(self, test: ast.expr) -> bool | None:
        """The outcome of a test where it is the same for all, or None."""
        if test not in self._decided:
            self._decided[test] = self._decide(test)
        return self._decided[test]

    def _decide(self, test: ast.expr) -> bool | None:
        found = set()
        for case in self.cases:
            try:
                found.add(_truth(self.value(test, case)))
            except Absent:
                continue
            except Unknown:
                return None
        return found.pop() if len(found) == 1 else None

    def same(self, node: ast.expr, check: Callable[[Any], bool]) -> bool:
        """Whether the value of an expression is known for all and passes."""
        passed = []
        for case in self.cases:
            try:
                passed.append(check(self.value(node, case)))
            except Absent:
                continue
            except Unknown:
                return False
        return bool(passed) and all(passed)

    def value(self, node: ast.expr, case: dict[str, Any]) -> Any:
        """The value of an expression in one case; raises Unknown or Absent."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() if node.id in case:
                return case[node.id]
            case ast.Attribute():
                return self._attribute(self.value(node.value, case), node.attr)
            case ast.Tuple():
                return tuple(self.value(part, case) for part in node.elts)
            case ast.UnaryOp(op=ast.Not()):
                return not _truth(self.value(node.operand, case))
            case ast.BoolOp():
                return self._both(node, case)
            case ast.Compare(ops=[kind], comparators=[other]):
                return _compared(kind, self.value(node.left, case), self.value(other, case))
            case ast.BinOp() if type(node.op) in COUNTS:
                left, right = self.value(node.left, case), self.value(node.right, case)
                if isinstance(left, int) and isinstance(right, int):
                    return COUNTS[type(node.op)](left, right)
            case ast.Call(func=ast.Name(id="isinstance"), args=[value, kinds]):
                return self._is_instance(value, kinds, case)
            case ast.Call(func=ast.Name(id=name), keywords=[]) if name in BUILTIN:
                arguments = [self.value(part, case) for part in node.args]
                if all(isinstance(a, PLAIN) for a in arguments):
                    return BUILTIN[name](*arguments)
            case ast.Call() if ast.unparse(node) == "torch.compiler.is_compiling()":
                return False  # what compilers see is the plain form
        raise Unknown

    def _attribute(self, owner: Any, name: str) -> Any:
        if owner is STATE:
            if name in self.unset:
                return None
            if name == "prefix" and not self.joined:
                return 0
            raise Unknown
        if isinstance(owner, Settled):
            if name not in owner:
                raise Unknown
            return owner[name]
        if owner is None:
            raise Absent
        if name == "training" or not isinstance(owner, nn.Module | tuple):
            raise Unknown
        try:
            return getattr(owner, name)
        except AttributeError:
            raise Absent from None

    def _both(self, node: ast.BoolOp, case: dict[str, Any]) -> bool:
        stops, unknown = isinstance(node.op, ast.Or), False
        for part in node.values:
            try:
                if _truth(self.value(part, case)) is stops:
                    return stops
            except Unknown:
                unknown = True
            except Absent:
                if not unknown:
                    raise
        if unknown:
            raise Unknown
        return not stops

    def _is_instance(self, node: ast.expr, kinds: ast.expr, case: dict[str, Any]) -> bool:
        try:
            value = self.value(node, case)
        except Unknown:
            if self.is_unmade(kinds):
                return False
            raise
        if value is TEXT:
            return ast.unparse(kinds) == "str"
        parts = kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]
        classes = tuple(self._class(part) for part in parts)
        return isinstance(value, classes)

    def is_unmade(self, node: ast.expr) -> bool:
        """Whether it names an own class of which there is no instance."""
        found = self.file.resolve(node.id) if isinstance(node, ast.Name) else None
        return isinstance(found, Definition) and isinstance(found.node, ast.ClassDef) and found not in self.made

    def _class(self, node: ast.expr) -> type:
        path = ast.unparse(node).split(".")
        found = self.file.real(path[0])
        for name in path[1:]:
            found = getattr(found, name, None)
        if not isinstance(found, type):
            raise Unknown
        return found


def _truth(value: Any) -> bool:
    if not isinstance(value, PLAIN):
        raise Unknown
    return bool(value)


def _compared(kind: ast.cmpop, left: Any, right: Any) -> bool:
    by_identity = isinstance(kind, ast.Is | ast.IsNot)
    if type(kind) not in COMPARE or not (by_identity or (isinstance(left, PLAIN) and isinstance(right, PLAIN))):
        raise Unknown
    return COMPARE[type(kind)](left, right)
