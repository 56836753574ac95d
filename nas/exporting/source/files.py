"""Files of source: what a module defines and imports, and where each piece of it stands in the text."""

from __future__ import annotations

import ast
import inspect
import sys
from typing import NamedTuple

OWN = ("nas", "nas_operators")  # top packages whose source is bundled: this project's, and a user's operators


class Definition(NamedTuple):
    """A class, function or constant of a module; several names where one assignment gives several."""

    file: SourceFile
    line: int

    @property
    def node(self) -> ast.stmt:
        return self.file.statements[self.line]

    @property
    def names(self) -> tuple[str, ...]:
        return defined_names(self.node)


class External(NamedTuple):
    """What an import of another package gives: `from module import name as local` or `import module as local`."""

    module: str
    name: str | None
    local: str

    def __str__(self) -> str:
        if self.name is None:
            renamed = self.local not in (self.module, self.module.partition(".")[0])
            return f"import {self.module}" + (f" as {self.local}" if renamed else "")
        return f"from {self.module} import {self.name}" + (f" as {self.local}" if self.local != self.name else "")


class SourceFile:
    """The text of a module, with what stands at its top level."""

    def __init__(self, module: str):
        self.module, self.loaded = module, sys.modules[module]
        self.text = inspect.getsource(self.loaded)
        self.tree = ast.parse(self.text)
        self.lines = self.text.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))
        self.statements = {s.lineno: s for s in self.tree.body if defined_names(s)}
        self.defined = {
            name: Definition(self, line) for line, s in self.statements.items() for name in defined_names(s)
        }
        self.imported = {local: found for s in self.tree.body for local, found in _imports(s)}

    def resolve(self, name: str) -> Definition | External | SourceFile | None:
        """What a name of the top level is: None for a builtin."""
        if name in self.defined:
            return self.defined[name]
        found = self.imported.get(name)
        if found is None or found.module.partition(".")[0] not in OWN:
            return found
        if found.name is not None and f"{found.module}.{found.name}" in sys.modules:
            return source_file(f"{found.module}.{found.name}")
        return source_file(found.module).resolve(found.name or name)

    def real(self, name: str) -> object:
        """The object itself."""
        return getattr(self.loaded, name, None)

    def place(self, line: int, column: int) -> int:
        """Place in the text of a line and a column in bytes, as syntax trees give it."""
        text = self.lines[line - 1]
        return self.starts[line - 1] + (column if text.isascii() else len(text.encode()[:column].decode()))

    def start(self, node: ast.AST) -> int:
        return self.place(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        return self.place(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def bracketed(self, node: ast.expr) -> tuple[int, int]:
        """Where an operand starts and ends, with the brackets around it."""
        start, end = self.start(node), self.end(node)
        while self.text[start - 1] == "(" and self.text[end] == ")":
            start, end = start - 1, end + 1
        return start, end

    def segment(self, node: ast.AST) -> str:
        return self.text[self.start(node) : self.end(node)]

    def first_line(self, node: ast.stmt) -> int:
        """The first line of a statement: of its decorators, and of comments right above it."""
        line = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        while line > 1 and self.lines[line - 2].strip().startswith("#"):
            line -= 1
        return line


def source_file(module: str) -> SourceFile:
    """The file of an imported module, read once; again where another module took its name."""
    found = _FILES.get(module)
    if found is None or found.loaded is not sys.modules[module]:
        found = _FILES[module] = SourceFile(module)
    return found


def defined_names(statement: ast.stmt) -> tuple[str, ...]:
    """Names that a statement at the top level defines."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return (statement.name,)
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    parts = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return tuple(part.id for part in parts if isinstance(part, ast.Name))


def _imports(statement: ast.stmt) -> list[tuple[str, External]]:
    if isinstance(statement, ast.Import):
        made = [External(a.name, None, a.asname or a.name.partition(".")[0]) for a in statement.names]
    elif isinstance(statement, ast.ImportFrom) and statement.module and statement.module != "__future__":
        made = [External(statement.module, a.name, a.asname or a.name) for a in statement.names]
    else:
        made = []
    return [(found.local, found) for found in made]


_FILES: dict[str, SourceFile] = {}
