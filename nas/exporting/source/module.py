"""Module: the whole text of one network's module, from its header to the demonstration at its end."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import sys

from nas.exporting.source.arrays import HELPERS
from nas.exporting.source.assembly import Assembly, arguments_of, joins
from nas.exporting.source.bundle import Bundle, definition_of
from nas.exporting.source.classes import Override
from nas.exporting.source.edits import WIDTH, quoted, reflowed
from nas.exporting.source.files import Definition, External, SourceFile, source_file
from nas.model.network import Network
from nas.model.stages import BlockModule, StageModule
from nas.ops.base import Operator
from nas.ops.catalogue import Catalogue
from nas.ops.site import Site
from nas.ops.tokens import Tokens

TEMPLATE = "nas.exporting.source.template"
CALLED = {BlockModule: "Block", StageModule: "Stage"}
ALWAYS = (External("torch", None, "torch"), External("torch", "nn", "nn"), External("torch", "Tensor", "Tensor"))
READ_BY_USERS = ("forward_features", "forward_head", "from_map")
LAST = ("read_weights", "load", "main")


def module_text(network: Network, header: str, operators: Catalogue) -> str:
    """The module of a network in eval mode."""
    for name in (TEMPLATE, HELPERS):
        importlib.import_module(name)
    roots = [definition_of(cls) for cls in (Site, Tokens)]
    roots += [source_file(TEMPLATE).resolve(name) for name in LAST]  # type: ignore[misc]
    plain = {found: Override("", dict.fromkeys(names, "")) for found, names in _replaced().items()}
    bundle = Bundle(
        network,
        arguments_of(network, operators),
        plain,
        [found for found in roots if found is not None],
        READ_BY_USERS,
        joins(network.architecture),
    )
    if bundle.all.double:
        bundle.require(source_file(HELPERS).defined["double_precision"])
    bundle.names = _names(bundle)
    assembly = Assembly(network, operators, bundle)
    bundle.overrides = assembly.overrides()
    return _joined(bundle, assembly, header)


def _replaced() -> dict[Definition, tuple[str, ...]]:
    """Methods that are written anew for every network."""
    classes = {BlockModule: ("__init__",), StageModule: ("__init__",), Network: ("__init__", "read")}
    return {found: names for cls, names in classes.items() if (found := definition_of(cls)) is not None}


def _names(bundle: Bundle) -> dict[tuple[Definition, str], str]:
    """What every definition is called, so that none hides another, an import, a builtin or a local of its readers."""
    names: dict[tuple[Definition, str], str] = {}
    for cls, name in CALLED.items():
        found = definition_of(cls)
        assert found is not None
        names[found, cls.__name__] = name
    taken = {*dir(builtins), *CALLED.values(), *(e.local for e in bundle.all.externals), *(e.local for e in ALWAYS)}
    fixed = {"Network", "Site", "Tokens", *LAST}
    pairs = [(found, name) for found in sorted(bundle.of, key=_rank) for name in found.names]
    for found, name in sorted(pairs, key=lambda pair: pair[1] not in fixed):
        if (found, name) in names:
            continue
        locals_ = {local for reader in bundle.of.values() if found in reader.definitions for local in reader.locals}
        new, stem = name, found.file.module.rpartition(".")[2]
        if new in taken or new in locals_:
            whole = isinstance(found.node, ast.ClassDef)
            new = stem.title().replace("_", "") + name if whole else f"{stem}_{name.lstrip('_')}"
        while new in taken or new in locals_:
            new += "_"
        taken.add(new)
        names[found, name] = new
    return names


def _rank(found: Definition) -> tuple[bool, str, int]:
    """Operators keep their names before others."""
    real = found.file.real(found.names[0])
    return not (isinstance(real, type) and issubclass(real, Operator)), found.file.module, found.line


def _joined(bundle: Bundle, assembly: Assembly, header: str) -> str:
    stages = assembly.stages()
    methods = "".join(text for override in bundle.overrides.values() for text in override.methods.values())
    texts = {found: bundle.text(found) for found in bundle.of}
    _drop_unread(bundle, texts, stages + methods)
    externals = {*ALWAYS, *(e for found in bundle.of for e in bundle.of[found].externals)}
    pieces = []
    for file in _files(bundle):
        if file.module == Network.__module__:
            pieces.append(stages)
        pieces += _pieces(bundle, file, texts)
    body = "\n\n".join(_tidy(piece) for piece in pieces)
    apart = "\n\n" if body.startswith(("class", "def", "@")) else "\n"
    start = f"{quoted(header, 0)}\nfrom __future__ import annotations\n\n{_imports(externals, body)}\n"
    return f'{start}{apart}{body}\n\nif __name__ == "__main__":\n    main()\n'


def _drop_unread(bundle: Bundle, texts: dict[Definition, str], written: str) -> None:
    """Leave out what only the modules of the network have (an inlined identity), and no text names."""
    named = {found for (found, _), name in bundle.names.items() if re.search(rf"\b{name}\b", written) or name in LAST}
    todo = list(named)
    while todo:
        more = bundle.of[todo.pop()].definitions - named
        named |= more
        todo += more
    for found in bundle.of.keys() - named:
        del bundle.of[found], texts[found]


def _pieces(bundle: Bundle, file: SourceFile, texts: dict[Definition, str]) -> list[str]:
    """The pieces of a file, constants that follow each other as one, below what the file of a part says of itself."""
    own = sorted((found for found in bundle.of if found.file is file), key=lambda found: found.line)
    pieces: list[str] = []
    constant = False
    for found in own:
        before, constant = constant, isinstance(found.node, ast.Assign | ast.AnnAssign)
        if before and constant:
            pieces[-1] += texts[found]
        else:
            pieces.append(texts[found])
    says = ast.get_docstring(file.tree)
    if pieces and says is not None and ".parts." in file.module:
        comment = "".join(f"# {line}".rstrip() + "\n" for line in reflowed(says, WIDTH - 2))
        pieces[0] = f"{comment}\n\n{pieces[0]}"
    return pieces


def _files(bundle: Bundle) -> list[SourceFile]:
    """The files in an order in which each comes after those that it reads."""
    reads: dict[SourceFile, dict[SourceFile, None]] = {}
    for found in sorted(bundle.of, key=_rank):
        inner = reads.setdefault(found.file, {})
        inner |= dict.fromkeys(
            d.file for d in sorted(bundle.of[found].definitions, key=_rank) if d.file is not found.file
        )
    ordered: dict[SourceFile, None] = {}

    def follow(file: SourceFile, above: tuple[SourceFile, ...]) -> None:
        if file in ordered or file in above:
            return
        for other in reads.get(file, ()):
            follow(other, (*above, file))
        ordered[file] = None

    last = [source_file(name) for name in (StageModule.__module__, Network.__module__, TEMPLATE)]
    for file in (*(file for file in reads if file not in last), *last):
        follow(file, ())
    return [file for file in ordered if file in reads]


def _imports(externals: set[External], body: str) -> str:
    """Import lines of those that the text reads: the standard library's, then torch's."""
    used = {e for e in externals if re.search(rf"(?<![\w.]){e.local}\b", body)}
    groups = []
    for standard in (True, False):
        chosen = [e for e in used if (e.module.partition(".")[0] in sys.stdlib_module_names) is standard]
        plain = sorted(str(e) for e in chosen if e.name is None)
        named: dict[str, list[str]] = {}
        for e in chosen:
            if e.name is not None:
                named.setdefault(e.module, []).append(str(e).partition(" import ")[2])
        groups.append(
            [
                *plain,
                *(f"from {m} import {', '.join(sorted(set(names), key=_case))}" for m, names in sorted(named.items())),
            ]
        )
    return "\n\n".join("\n".join(group) for group in groups if group)


def _case(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, as linters sort names."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name


def _tidy(text: str) -> str:
    """Blank lines as formatters leave them, and no words for type checkers of the project."""
    text = re.sub(r"  # type: ignore[^\n]*", "", text)
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n{3,}(?=[ \t])", "\n\n", text)
    text = re.sub(r":\n\n+(?=[ ]+\S)", ":\n", text)
    return text.rstrip() + "\n"
