"""Types: annotations and signatures, less the own classes of which there is no instance."""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import TYPE_CHECKING

from nas.exporting.source.files import External

if TYPE_CHECKING:
    from nas.exporting.source.shaping import Shaper

KINDS = "nas.ops.base"  # its classes are plain modules in the bundle


def annotation(shaper: Shaper, node: ast.expr | None) -> None:
    """Shape a type."""
    if node is None:
        return
    if isinstance(node, ast.BinOp):
        for part, other in ((node.left, node.right), (node.right, node.left)):
            if shaper.facts.is_unmade(part):
                shaper.shrink(node, other)
                annotation(shaper, other)
                return
    if isinstance(node, ast.Name) and getattr(shaper.file.real(node.id), "__module__", "") == KINDS:
        shaper.needs.externals.add(External("torch", "nn", "nn"))
        shaper.edits.replace(node, "nn.Module")
    elif isinstance(node, ast.Name | ast.Attribute):
        made = set(shaper.needs.made)
        shaper.visit(node)
        shaper.needs.made = made  # a type alone makes no instance
    elif not isinstance(node, ast.Constant):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                annotation(shaper, child)


def arguments(shaper: Shaper, node: ast.arguments, without: Collection[str] = ()) -> None:
    """Shape the arguments of a function, but for those that go."""
    pairs = zip(node.kwonlyargs, node.kw_defaults, strict=True)
    kept = [(argument, default) for argument, default in pairs if argument.arg not in without]
    for argument in (*node.posonlyargs, *node.args, *(a for a, _ in kept), node.vararg, node.kwarg):
        if argument is not None:
            annotation(shaper, argument.annotation)
    for value in (*node.defaults, *(d for _, d in kept)):
        if value is not None:
            shaper.visit(value)
