"""Edits of a text: what is taken out and put in, applied at once."""

from __future__ import annotations

import ast
from typing import NamedTuple

from nas.exporting.source.files import SourceFile

WIDTH = 120
INDENT = 4


class Edits:
    """Changes of one file's text. What is taken out may overlap; what is put in stays even where all around it goes."""

    def __init__(self, file: SourceFile):
        self.file = file
        self._out: list[tuple[int, int]] = []
        self._in: dict[int, str] = {}
        self._dedents: dict[int, int] = {}

    def delete(self, start: int, end: int) -> None:
        self._out.append((start, end))

    def insert(self, place: int, text: str) -> None:
        self._in[place] = self._in.get(place, "") + text

    def replace(self, node: ast.AST, text: str) -> None:
        self.delete(self.file.start(node), self.file.end(node))
        self.insert(self.file.start(node), text)

    def delete_lines(self, first: int, last: int) -> None:
        """Whole lines, both included."""
        self.delete(self.file.starts[first - 1], self.file.starts[last])

    def thin(self, places: list[tuple[int, int]], gone: list[bool]) -> None:
        """Take items at these places out of a list, each with the separator beside it."""
        last = max((number for number, out in enumerate(gone) if not out), default=None)
        for number, (start, end) in enumerate(places):
            if gone[number] and last is None:
                self.delete(places[0][0], end)
            elif gone[number] and last is not None:
                self.delete(*((start, places[number + 1][0]) if number < last else (places[last][1], end)))

    def dedent(self, first: int, last: int) -> None:
        """Take one level of indentation from these lines."""
        for line in range(first, last + 1):
            depth = self._dedents[line] = self._dedents.get(line, 0) + INDENT
            text = self.file.lines[line - 1]
            start = self.file.starts[line - 1]
            self.delete(start, start + min(depth, len(text) - len(text.lstrip(" "))))

    def take(self, other: Edits) -> None:
        """Its changes as well."""
        self._out += other._out
        for place, text in other._in.items():
            self.insert(place, text)

    def apply(self, start: int, end: int) -> str:
        """The text of this range afterwards."""
        text, gone = self.file.text, bytearray(end - start)
        for first, last in self._out:
            first, last = max(first, start), min(last, end)
            if first < last:
                gone[first - start : last - start] = b"\1" * (last - first)
        made = []
        for place in range(start, end + 1):
            made.append(self._in.get(place, ""))
            if place < end and not gone[place - start]:
                made.append(text[place])
        return "".join(made)


class Wrapped(NamedTuple):
    """A bracketed list, broken as formatters do: on one line, on one between the brackets, or an item a line."""

    before: str
    items: list[str]
    after: str

    def at(self, indent: int) -> str:
        pad, inner = " " * indent, " " * (indent + INDENT)
        line = f"{pad}{self.before}{', '.join(self.items)}{self.after}"
        if len(line) <= WIDTH and "\n" not in line:
            return line
        middle = f"{inner}{', '.join(self.items)}"
        if len(middle) <= WIDTH and "\n" not in middle:
            return f"{pad}{self.before}\n{middle}\n{pad}{self.after}"
        return "\n".join([f"{pad}{self.before}", *(f"{inner}{item}," for item in self.items), f"{pad}{self.after}"])


def reflowed(text: str, width: int, first: int = 0) -> list[str]:
    """The lines of a text, broken anew where they are too long; the first has this many characters less.

    What is left of a line goes before the next where that goes on with the sentence, else it stands alone.
    """
    lines: list[str] = []
    rest = ""
    for line in text.strip().split("\n"):
        if rest and not line.strip()[:1].islower():
            lines.append(rest)
            rest = ""
        whole = f"{rest} {line.strip()}" if rest else line.rstrip()
        cut = len(whole)
        limit = width - (0 if lines else first)
        if len(whole) > limit and whole.rfind(" ", 1, limit + 1) > 0:
            cut = whole.rfind(" ", 1, limit + 1)
        lines.append(whole[:cut])
        rest = whole[cut + 1 :]
    return [*lines, rest] if rest else lines


def quoted(text: str, indent: int) -> str:
    """A docstring at this depth."""
    text = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    pad, lines = " " * indent, reflowed(text, WIDTH - indent, first=3)
    if len(lines) == 1 and len(lines[0]) + indent + 6 <= WIDTH and not lines[0].endswith('"'):
        return f'{pad}"""{lines[0]}"""\n'
    body = "".join(f"{pad}{line}\n" if line else "\n" for line in lines[1:])
    return f'{pad}"""{lines[0]}\n{body}{pad}"""\n'
