"""Tables that operators compute with NumPy, written in torch: the same numbers where torch's default is double."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from nas.exporting.source.files import Definition, External, source_file

if TYPE_CHECKING:
    from nas.exporting.source.shaping import Shaper

HELPERS = "nas.exporting.source.helpers"
SAME = frozenset({"arange", "stack", "where", "outer", "linspace", "zeros", "square", "abs", "minimum", "maximum"})
OTHER = {"concatenate": "cat", "repeat": "repeat_interleave"}
TYPES = frozenset({"float32", "float64", "int32", "int64"})
SCALAR = frozenset({"exp", "log", "log1p", "sqrt", "sin", "cos"})  # of numbers, and of tensors
ROUNDED = SCALAR | {"linspace", "repeat"}  # these need double precision
TORCH, MATH, TENSOR = (
    External("torch", None, "torch"),
    External("math", None, "math"),
    External("torch", "Tensor", "Tensor"),
)


class NoTorchForm(Exception):
    """A table is computed with a function of NumPy for which no torch form is written here."""


def is_array(shaper: Shaper, node: ast.expr) -> bool:
    """Whether it is an attribute of NumPy, or torch's door from it."""
    if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
        return False
    found = shaper.file.imported.get(node.value.id)
    if found is None or node.value.id in shaper.needs.locals:
        return False
    return found.module == "numpy" or (found.module == "torch" and node.attr == "from_numpy")


def attribute(shaper: Shaper, node: ast.Attribute) -> None:
    """A type, a number or a function of NumPy."""
    if node.attr == "ndarray":
        external, text = TENSOR, "Tensor"
    elif node.attr == "pi":
        external, text = MATH, "math.pi"
    elif node.attr in SAME | SCALAR | TYPES or node.attr in OTHER:
        external, text = TORCH, f"torch.{OTHER.get(node.attr, node.attr)}"
    else:
        raise NoTorchForm(f"a table is computed with numpy.{node.attr}, which has no torch form here")
    shaper.needs.externals.add(external)
    shaper.edits.replace(node, text)


def call(shaper: Shaper, node: ast.Call) -> None:
    """A call of NumPy's."""
    assert isinstance(node.func, ast.Attribute)
    name, edits, file = node.func.attr, shaper.edits, shaper.file
    if name in ("ascontiguousarray", "from_numpy"):
        shaper.shrink(node, node.args[0])
        if name == "ascontiguousarray":
            edits.insert(file.end(node.args[0]), ".contiguous()")
    elif name == "divmod":
        helper = source_file(HELPERS).resolve("quotient_and_rest")
        assert isinstance(helper, Definition)
        shaper.refer(node.func, helper, "quotient_and_rest")
    elif name in TYPES:
        edits.replace(node.func, "float" if name.startswith("float") else "int")
    elif name in SCALAR and not _names(node):
        shaper.needs.externals.add(MATH)
        edits.replace(node.func, f"math.{name}")
    else:
        attribute(shaper, node.func)
        shaper.needs.double |= name in ROUNDED
    if name == "zeros" and len(node.args) > 1:
        edits.insert(file.start(node.args[1]), "dtype=")
    for argument in node.args:
        shaper.visit(argument)
    for keyword in node.keywords:
        if keyword.arg == "axis":
            start = file.start(keyword)
            edits.delete(start, start + len("axis"))
            edits.insert(start, "dim")
        shaper.visit(keyword.value)


def method(shaper: Shaper, node: ast.Call) -> None:
    """A method of an array that tensors have under another name; only in files that use NumPy."""
    if not isinstance(node.func, ast.Attribute) or all(e.module != "numpy" for e in shaper.file.imported.values()):
        return
    name = node.func.attr
    renamed = "permute" if name == "transpose" and len(node.args) > 2 else "to" if name == "astype" else None
    if renamed is not None:
        end = shaper.file.end(node.func)
        shaper.edits.delete(end - len(name), end)
        shaper.edits.insert(end, renamed)


def _names(node: ast.Call) -> bool:
    return any(isinstance(n, ast.Name) for argument in node.args for n in ast.walk(argument))
