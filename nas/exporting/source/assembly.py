"""Assembly: the constructor of one network as text, stage by stage and block by block, in calls of its operators."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

from nas.core.architecture import Architecture
from nas.exporting.source.bundle import Bundle, definition_of
from nas.exporting.source.classes import Override
from nas.exporting.source.edits import INDENT, Wrapped
from nas.exporting.source.files import Definition
from nas.model.network import Network
from nas.model.plan import Place, input_site, places_of, stage_site
from nas.model.stages import BlockModule, Scale, StageModule
from nas.ops.catalogue import Catalogue, knob_defaults
from nas.ops.parts.drop import DropPath
from nas.ops.site import Site

PARTS = ("position", "reduction", "mixer", "feedforward", "exit")  # of a block, in order
NORMS = ("norm1", "norm2", "scale1", "scale2")
FLAGS = ("joint", "forgets")


class Line(NamedTuple):
    """A statement `before(items)after` at a depth."""

    text: Wrapped
    depth: int = 1

    def __str__(self) -> str:
        return self.text.at(self.depth * INDENT)


def arguments_of(network: Network, operators: Catalogue) -> dict[nn.Module, dict[str, Any]]:
    """The arguments of every operator of a network, by its module."""
    found: dict[nn.Module, dict[str, Any]] = {}
    for place in places_of(operators, network.architecture):
        cls = operators.get(place.kind, place.spec.name)
        context = place.context | ({"classes": network.num_classes} if "classes" in place.context else {})
        knobs = knob_defaults(cls) | dict(place.spec.knobs)
        found[network.get_submodule(place.path)] = {"site": place.site, **context, **knobs}
    return found


class Assembly:
    """The text of stages and network, once the bundle says which arguments and parts are read."""

    def __init__(self, network: Network, operators: Catalogue, bundle: Bundle):
        self.network, self.operators, self.bundle = network, operators, bundle
        self.arguments = bundle.arguments
        self.places: dict[str, Place] = {p.path: p for p in places_of(operators, network.architecture)}

    def stages(self) -> str:
        """One function a stage."""
        texts, before = [], input_site(self.network.architecture)
        for number, stage in enumerate(self.network.stages):
            assert isinstance(stage, StageModule)
            texts.append("\n".join(self._stage(number, stage, before)) + "\n")
            before = stage.out
        return "\n\n".join(texts)

    def _stage(self, number: int, stage: StageModule, before: Site) -> Iterator[str]:
        plan = self.network.architecture.stages[number]
        site = stage_site(self.operators, plan, before)
        yield f"def stage_{number + 1}() -> {self.name(StageModule)}:"
        holds = f"{site.tokens} tokens ({site.height} x {site.width}) of {site.dim} channels"
        yield f'    """{holds}: {_blocks(len(plan.blocks))}."""'
        own, variable = [], {"before": before, "site": site}
        if stage.embed is not None:
            own.append(("embed", self.call(f"stages.{number}.embed", variable, "before")))
        if stage.position is not None:
            own.append(("entry", self.call(f"stages.{number}.position", variable, "site")))  # blocks have positions too
        loops = list(self._blocks(number, stage, variable))
        uses = " ".join([*(c.before + " ".join(c.items) for _, c in own), *loops])
        for name in ("before", "site"):
            if re.search(rf"\b{name}\b", uses):
                yield str(Line(Wrapped(f"{name} = {self.name(Site)}(", _site_items(variable[name]), ")")))
        for name, made in own:
            yield str(Line(made._replace(before=f"{name} = {made.before}")))
        yield f"    blocks: list[{self.name(BlockModule)}] = []" if not plan.blocks else "    blocks = []"
        yield from loops
        items = ["blocks", *self._stage_items(stage, [name for name, _ in own])]
        yield str(Line(Wrapped(f"return {self.name(StageModule)}(", items, ")")))

    def _stage_items(self, stage: StageModule, own: list[str]) -> Iterator[str]:
        reads = self.reads(StageModule)
        if "grid" in reads:
            yield f"grid={stage.grid}"
        yield from (f"{'position' if name == 'entry' else name}={name}" for name in own)
        if stage.joining:
            shapes = ", ".join(f'"{name}": {tuple(getattr(stage, name).shape)}' for name in stage.joining)
            yield f"joining={{{shapes}}}"
        if "end_norm" in reads:
            yield f"end_norm={self.norm(stage.end_norm)}"

    def _blocks(self, number: int, stage: StageModule, variable: dict[str, Site]) -> Iterator[str]:
        texts = []
        for depth, block in enumerate(stage.blocks):
            assert isinstance(block, BlockModule)
            initial = self.network.architecture.stages[number].blocks[depth].layer_scale
            texts.append(tuple(self._block(f"stages.{number}.blocks.{depth}", block, initial, variable)))
        for period, count in _runs(texts):
            yield from (f"    for _ in range({count}):",) if count > 1 else ()
            for lines in period:
                yield from (str(line._replace(depth=1 + (count > 1))) for line in lines)

    def _block(self, path: str, block: BlockModule, initial: float | None, variable: dict[str, Site]) -> Iterator[Line]:
        parts = [part for part in PARTS if getattr(block, part) is not None]
        for part in parts:
            made = self.call(f"{path}.{part}", variable, "site")
            yield Line(made._replace(before=f"{part} = {made.before}"))
        items = [f"{part}={part}" for part in parts]
        reads = self.reads(BlockModule)
        for name in NORMS:
            if name in reads and getattr(block, name, None) is not None:
                items.append(f"{name}={self.norm(getattr(block, name), initial)}")
        items += [f"{name}=True" for name in FLAGS if name in reads and getattr(block, name)]
        items += [f"drop_path={block.drop.rate!r}"] if "drop" in reads and block.drop.rate else []
        yield Line(Wrapped(f"block = {self.name(BlockModule)}(", items, ")"))
        yield Line(Wrapped("blocks.append(", ["block"], ")"))

    # Calls

    def call(self, path: str, variable: dict[str, Site], base: str) -> Wrapped:
        """The call that makes an operator."""
        module = self.network.get_submodule(path)
        cls = definition_of(type(module))
        assert cls is not None
        needs = self.bundle.methods[cls, "__init__"]
        defaults = knob_defaults(type(module))  # type: ignore[arg-type]
        items = [_site(self.places[path].site, variable[base], needs.site, base)]
        for name, value in self.arguments[module].items():
            if name != "site" and name in needs.loads and not (name in defaults and _same(value, defaults[name])):
                items.append(f"{name}={written(value)}")
        return Wrapped(f"{self.name(type(module))}(", items, ")")

    def norm(self, module: nn.Module, initial: float | None = None) -> str:
        """The call that makes a norm, an identity, or a scale with its initial value."""
        if isinstance(module, nn.Identity):
            return "nn.Identity()"
        name = self.name(type(module))
        if isinstance(module, Scale):
            return f"{name}({module.weight.shape[0]}, {initial!r})"
        (dim,) = module.weight.shape  # type: ignore[misc]
        eps = getattr(module, "eps", None)
        return f"{name}({dim})" if eps is None else f"{name}({dim}, eps={eps!r})"

    def name(self, cls: type) -> str:
        """What a class is called in the new text."""
        found = definition_of(cls)
        return f"nn.{cls.__name__}" if found is None else self.bundle.names.get((found, cls.__name__), cls.__name__)

    # What the classes read

    def reads(self, cls: type) -> set[str]:
        """Attributes of self that the shaped methods of a class read."""
        found = definition_of(cls)
        assert found is not None
        return {name for (owner, _), needs in self.bundle.methods.items() if owner == found for name in needs.own}

    # Classes

    def overrides(self) -> dict[Definition, Override]:
        """Constructors of block, stage and network, and how the network reads an image."""
        made = {
            BlockModule: Override(BLOCK, {"__init__": "\n".join(self._block_constructor())}),
            StageModule: Override(STAGE, {"__init__": "\n".join(self._stage_constructor())}),
            Network: Override(NETWORK, {"__init__": "\n".join(self._network_constructor()), "read": READ}),
        }
        return {_definition(cls): override for cls, override in made.items()}

    def _block_constructor(self) -> Iterator[str]:
        blocks = [m for m in self.network.modules() if isinstance(m, BlockModule)]
        reads = self.reads(BlockModule)
        always: list[str] = []
        sometimes: list[str] = []
        for name in (*PARTS, *NORMS):
            present = [getattr(block, name, None) is not None for block in blocks]
            if name in reads or (name == "exit" and any(present)):
                (always if all(present) else sometimes).append(name)
        flags = [name for name in FLAGS if name in reads]
        items = ["self", *(["*"] if always or sometimes or flags else [])]
        items += [f"{name}: nn.Module" for name in always]
        items += [f"{name}: nn.Module | None = None" for name in sometimes]
        items += [f"{name}: bool = False" for name in flags]
        items += ["drop_path: float = 0.0"] if "drop" in reads else []
        yield Wrapped("def __init__(", items, "):").at(INDENT)
        yield "        super().__init__()"
        yield from (f"        self.{name} = {name}" for name in (*PARTS, *NORMS) if name in [*always, *sometimes])
        yield from (f"        self.{name} = {name}" for name in flags)
        if "drop" in reads:
            yield f"        self.drop = {self.name(DropPath)}(drop_path)"

    def _stage_constructor(self) -> Iterator[str]:
        stages = [m for m in self.network.stages if isinstance(m, StageModule)]
        reads, joins = self.reads(StageModule), any(stage.joining for stage in stages)
        items = ["self", f"blocks: list[{self.name(BlockModule)}]", "*"]
        items += ["grid: tuple[int, int]"] if "grid" in reads else []
        parts = [name for name in ("embed", "position", "end_norm") if name in reads]
        always = [name for name in parts if all(getattr(stage, name) is not None for stage in stages)]
        items += [f"{name}: nn.Module" for name in always]
        items += [f"{name}: nn.Module | None = None" for name in parts if name not in always]
        items += ["joining: dict[str, tuple[int, ...]] | None = None"] if joins else []
        yield Wrapped("def __init__(", items[:-1] if items[-1] == "*" else items, "):").at(INDENT)
        yield "        super().__init__()"
        yield from (f"        self.{name} = {name}" for name in ("grid", *parts) if name in reads)
        if joins:
            yield "        self.joining = tuple(joining or ())"
            yield "        for name, shape in (joining or {}).items():"
            yield "            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))"
        yield "        self.blocks = nn.ModuleList(blocks)"

    def _network_constructor(self) -> Iterator[str]:
        architecture, deep = self.network.architecture, 2 + self.bundle.all.double
        shape = (architecture.channels, architecture.input, architecture.input)
        yield "    def __init__(self) -> None:"
        yield "        super().__init__()"
        yield f"        self.input_shape = {shape}"
        yield f"        self.num_classes = {self.network.num_classes}"
        yield f"        self.num_features = {self.network.num_features}"
        yield str(Line(Wrapped(f"self.out = {self.name(Site)}(", _site_items(self.network.out), ")"), 2))
        yield from ("        with double_precision():",) if self.bundle.all.double else ()
        stages = [f"stage_{n + 1}()" for n in range(len(self.network.stages))]
        yield str(Line(Wrapped("self.stages = nn.ModuleList([", stages, "])"), deep))
        head = self.call("head", {"self.out": self.network.out}, "self.out")
        yield str(Line(head._replace(before=f"self.head = {head.before}"), deep))
        if self.network.has_exits:
            yield "        self.has_exits = True"
        yield from ("        self.float()",) if self.bundle.all.double else ()


BLOCK = "One block: what it has of position, reduction, mixer, feed-forward and exit; scales stand before the sums."
STAGE = "One resolution: embedding, tokens that join, position, blocks, closing norm."
NETWORK = "Images (B, *input_shape) to logits (B, num_classes)."
READ = '''    def read(self, image: Tensor) -> Tokens:
        """The state of an image, which must be of this network's size; channels-last, as all maps of tokens are."""
        if tuple(image.shape[1:]) != self.input_shape:
            raise ValueError(f"this network reads images (B, *{self.input_shape}), not {tuple(image.shape)}")
        return Tokens.from_map(image.contiguous(memory_format=torch.channels_last))
'''


def written(value: Any) -> str:
    """A value of a knob as Python."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def joins(architecture: Architecture) -> bool:
    """Whether any prefix token joins."""
    return any(stage.class_token or stage.distill_token or stage.registers for stage in architecture.stages)


def _same(value: Any, default: Any) -> bool:
    return bool(value == default) and type(value) is type(default)


def _definition(cls: type) -> Definition:
    found = definition_of(cls)
    assert found is not None
    return found


def _site_items(site: Site) -> list[str]:
    """The fields of a site, those at their default left out."""
    default = site._field_defaults
    pairs = zip(site._fields, site, strict=True)
    return [f"{name}={written(value)}" for name, value in pairs if name not in default or value != default[name]]


def _site(site: Site, base: Site, fields: set[str], name: str) -> str:
    """The site as the base by name, changed in those of the fields that are read."""
    read = site._fields if "*" in fields else [field for field in site._fields if field in fields]
    changed = [f"{f}={written(getattr(site, f))}" for f in read if getattr(site, f) != getattr(base, f)]
    return f"{name}._replace({', '.join(changed)})" if changed else name


def _blocks(count: int) -> str:
    return {0: "no blocks", 1: "one block"}.get(count, f"{count} blocks")


def _runs(texts: list[tuple[Line, ...]]) -> Iterator[tuple[list[tuple[Line, ...]], int]]:
    """The sequence as repeated groups: (group, times)."""
    start = 0
    while start < len(texts):
        best = (1, 1)
        for period in range(1, (len(texts) - start) // 2 + 1):
            count = 1
            group = texts[start : start + period]
            while texts[start + count * period : start + (count + 1) * period] == group:
                count += 1
            if count > 1 and count * period > best[0] * best[1]:
                best = (period, count)
        period, count = best
        yield texts[start : start + period], count
        start += period * count
