"""What stands where: every module that some network of a space has, with its place, as the rules lead there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from nas.core.architecture import NONE
from nas.core.space import Space
from nas.ops.base import Mixer
from nas.ops.catalogue import Catalogue
from nas.ops.rules import OperatorRules
from nas.ops.site import Form, Site


class Placement(NamedTuple):
    """A module that some network of a space has at a place: an operator's spec, a norm, a scale, or joining tokens."""

    kind: str
    value: Any
    site: Site
    context: tuple[tuple[str, int], ...] = ()


def placements(space: Space, operators: Catalogue) -> Iterator[tuple[str, Placement]]:
    """(module path, placement) of every module that some network of the space has, each once."""
    seen: set[Any] = set()
    rules = OperatorRules(operators)
    for place, kind, values, form in space.reachable():
        here = (place, kind, values, form.site(), form.position, form.joins, form.next_dim, form.normed)
        if kind not in _PLACING or here in seen:
            continue
        seen.add(here)
        path = place.replace("[", ".").replace("]", "").rpartition(".")[0]
        for value in values:
            after = rules.advance(form, kind, value)
            for name, placement in _placed(kind, value, form, after, operators, space.template.classes):
                key = (".".join(part for part in (path, name) if part), placement)
                if key not in seen:
                    seen.add(key)
                    yield key


_PLACING = {"stage.embed", "stage.position", "norm", "layer_scale", *("position", "reduction", "mixer", "feedforward")}
_PLACING |= {"exit", "end_norm", "head"}


def _placed(
    kind: str, value: Any, form: Form, after: Form, operators: Catalogue, classes: int
) -> Iterator[tuple[str, Placement]]:
    """What one decision places, under its name in the module tree."""
    whole = (("classes", classes),)
    match kind:
        case "stage.embed":
            if value is not NONE:
                yield "embed", Placement("embed", value, form.site(), (("dim", form.next_dim),))
            for item in sorted(form.joins):  # a supernet draws its first weights in this order
                word, count = item.split(":")
                yield "", Placement(word, int(count), after.site())
        case "stage.position" if value is not NONE:
            yield "position", Placement("position", value, form.site())
        case "norm" if value is not NONE and form.normed:
            yield "norm1", Placement("norm", value, form.site())
            yield "norm2", Placement("norm", value, form.site())
        case "layer_scale" if value is not None:
            yield "scale1", Placement("scale", value, form.site())
            yield "scale2", Placement("scale", value, form.site())
        case "mixer" if value is not NONE:
            cls = operators.get("mixer", value.name)
            assert issubclass(cls, Mixer)
            heads, head_dim = cls.heads_of(form.dim, **dict(value.knobs))
            site = form.site()._replace(heads=heads, head_dim=head_dim)
            if form.position is not NONE:  # what it supplies depends on the heads
                yield "position", Placement("position", form.position, site)
            yield kind, Placement(kind, value, site)
        case "position" if value is not NONE and after.position is NONE:
            yield kind, Placement(kind, value, form.site())
        case "reduction" | "feedforward" if value is not NONE:
            yield kind, Placement(kind, value, form.site())
        case "exit" if value is not NONE:
            yield kind, Placement(kind, value, form.site(), whole)
        case "end_norm" if value is not NONE:
            yield kind, Placement("norm", value, form.site())
        case "head":
            yield kind, Placement(kind, value, form.site(), whole)
