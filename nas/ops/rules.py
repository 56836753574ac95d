"""Which combinations of operators are legal: derived from the classes, in one place."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from nas.core.architecture import NONE
from nas.core.space import Illegal
from nas.core.spec import Spec
from nas.ops.base import Embed, FeedForward, Head, Mixer, Operator, Position, Reduction
from nas.ops.catalogue import Catalogue, catalogue
from nas.ops.parts.norms import parse_norms
from nas.ops.site import GRID, UNITS, Form

_PREFIX = ("class_token", "distill_token", "registers")
_EMPTY: frozenset[str] = frozenset()


class OperatorRules:
    """`nas.core.space.Rules` over a catalogue."""

    def __init__(self, operators: Catalogue | None = None):
        self.catalogue = operators or catalogue()
        self._steps: dict[str, Callable[[Form, Any], Form]] = {
            "input": lambda form, value: form._replace(height=value, width=value),
            "layout": lambda form, value: form,
            "repeat": lambda form, value: form,
            "stage.dim": lambda form, value: form._replace(next_dim=value),
            "stage.class_token": lambda form, value: self._join(form, "class_token", value),
            "stage.distill_token": lambda form, value: self._join(form, "distill_token", value),
            "stage.registers": lambda form, value: self._join(form, "registers", value),
            "stage.embed": self._embed,
            "stage.position": self._entry,
            "norm": lambda form, value: form,
            "residual": self._residual,
            "layer_scale": lambda form, value: form,
            "position": self._position,
            "reduction": self._reduction,
            "mixer": self._mixer,
            "feedforward": self._feedforward,
            "exit": self._exit,
            "end_norm": lambda form, value: form._replace(previous=_EMPTY),
            "head": self._head,
        }

    def specs(self, kind: str, text: str, place: str) -> list[Spec]:
        return parse_norms(text, place) if kind == "norm" else self.catalogue.specs(kind, text, place)

    def start(self, channels: int) -> Form:
        return Form(dim=channels, image=True)

    def advance(self, form: Form, kind: str, value: Any) -> Form:
        return self._steps[kind](form, value)

    def active(self, form: Form, kind: str) -> bool:
        if kind == "norm":
            return form.normed
        return form.parts == 2 if kind == "residual" else form.added

    def _join(self, form: Form, word: str, value: Any) -> Form:
        if not value:
            return form
        if getattr(form, word):
            raise Illegal(f"{word}: these tokens join once, and they are here from an earlier stage")
        later = _PREFIX[_PREFIX.index(word) + 1 :]
        if any(getattr(form, other) for other in later):
            raise Illegal(
                f"{word}: it joins before {' and '.join(later)}, or with them: that is the order of prefix tokens"
            )
        return form._replace(joins=form.joins | {f"{word}:{int(value)}"})

    def _embed(self, form: Form, spec: Spec) -> Form:
        """Grid and width of the stage; tokens that join stand in the prefix from here on."""
        if spec is NONE:
            if form.next_dim != form.dim:
                raise Illegal(f"a stage without embedding keeps its width: dim is {form.dim}, {form.next_dim} asked")
        else:
            cls = self._check("embed", spec, form)
            assert issubclass(cls, Embed)
            if form.image and not cls.stem:
                raise Illegal(f"{spec.name} stands between stages, not on the image")
            height, width = cls.out(form.height, form.width, **dict(spec.knobs))
            if height < 1 or width < 1:
                raise Illegal(f"{spec.name}: the grid {form.height}x{form.width} is too small")
            form = form._replace(height=height, width=width, image=False)
        joined = {word: int(count) for word, count in (item.split(":") for item in form.joins)}
        return form._replace(
            dim=form.next_dim,
            next_dim=0,
            joins=_EMPTY,
            class_token=form.class_token or "class_token" in joined,
            distill_token=form.distill_token or "distill_token" in joined,
            registers=form.registers or joined.get("registers", 0),
            previous=_EMPTY,
        )

    def _entry(self, form: Form, spec: Spec) -> Form:
        if spec is not NONE:
            self._stands(self._check("position", spec, form), spec, "stage")
        return form

    def _position(self, form: Form, spec: Spec) -> Form:
        if spec is not NONE:
            self._stands(self._check("position", spec, form), spec, "block")
        return form._replace(position=spec if self._supplies(spec) else NONE)

    def _reduction(self, form: Form, spec: Spec) -> Form:
        """From here on only its name matters (and the unit it leaves): the form is the same for all its knobs."""
        if spec is NONE:
            return form
        cls = self._check("reduction", spec, form)
        assert issubclass(cls, Reduction)
        missing = cls.reads_previous - form.previous
        if missing:
            raise Illegal(f"{spec.name} reads {_all(missing)} of the previous block, with the same tokens")
        form = form._replace(split=cls.where == "between")
        return self._reduce(form._replace(reduction=spec if cls.leaves == UNITS else Spec(spec.name)), "before")

    def _mixer(self, form: Form, spec: Spec) -> Form:
        supplies = self._supplies(form.position)
        needed = self._reads(form.reduction)
        reads = emits = _EMPTY
        if spec is not NONE:
            cls = self.catalogue.get("mixer", spec.name)
            assert issubclass(cls, Mixer)
            try:
                heads, head_dim = cls.heads_of(form.dim, **dict(spec.knobs))
            except ValueError as error:
                raise Illegal(str(error)) from None
            form = form._replace(heads=heads, head_dim=head_dim)
            self._check("mixer", spec, form)
            reads, emits = cls.reads, cls.emits
            split = form.split or not cls.residual or bool(form.prefix and cls.prefix == "bypasses")
            form = form._replace(normed=cls.normed, parts=1, added=cls.residual, split=split)
            missing = cls.reads_previous - form.previous
            if missing:
                raise Illegal(f"{spec.name} reads {_all(missing)} of the previous block's mixer, with the same tokens")
            if form.position is not NONE:
                self._check("position", form.position, form)
        if supplies - reads:
            raise Illegal(f"{form.position.name} supplies {_all(supplies)}, which {spec.name} does not read")
        if needed - emits:
            raise Illegal(f"{form.reduction.name} reads {_all(needed)}, which {spec.name} does not leave")
        form = form._replace(position=NONE, heads=0, head_dim=0, emits=self._left(form, emits))
        return self._reduce(form, "between")

    def _feedforward(self, form: Form, spec: Spec) -> Form:
        if spec is not NONE:
            cls = self._check("feedforward", spec, form)
            assert issubclass(cls, FeedForward)
            normed, split = form.normed or cls.normed, form.split or not cls.residual
            added = form.added or cls.residual
            form = form._replace(normed=normed, parts=form.parts + 1, added=added, split=split)
        return self._reduce(form, "after")

    def _residual(self, form: Form, value: str) -> Form:
        if value == "joint" and form.split:
            raise Illegal(
                "a joint residual takes a mixer and a feed-forward that are added as residuals, no reduction between "
                "them, and no prefix tokens that bypass the mixer: this block needs split residuals"
            )
        return form

    def _exit(self, form: Form, spec: Spec) -> Form:
        """Closes the block as well: what the next block may read, and the layout it finds."""
        if spec is not NONE:
            self._check("exit", spec, form)
        return form._replace(
            previous=form.emits, emits=_EMPTY, normed=False, parts=0, added=False, split=False, reduction=NONE
        )

    def _head(self, form: Form, spec: Spec) -> Form:
        if spec is NONE:
            raise Illegal("a network needs a head")
        cls = self._check("head", spec, form)
        assert issubclass(cls, Head)
        if cls.needs_distill and not form.distill_token:
            raise Illegal(f"{spec.name} reads the distillation token: set distill_token")
        return form

    def _check(self, kind: str, spec: Spec, form: Form) -> type[Operator]:
        """The class, after the rules that hold for every operator."""
        cls = self.catalogue.get(kind, spec.name)
        if form.layout not in cls.takes:
            raise Illegal(f"{spec.name} takes tokens as {_any(cls.takes)}; an earlier reduction leaves a {form.layout}")
        if cls.prefix == "refuses" and form.prefix:
            raise Illegal(
                f"{spec.name} takes no prefix tokens (class, distillation, registers), {form.prefix} are here"
            )
        if cls.needs_class and not form.class_token:
            raise Illegal(f"{spec.name} reads the class token: set class_token in this stage or before")
        broken = cls.rule(form, **dict(spec.knobs))
        if broken:
            raise Illegal(f"{spec.name}: {broken}")
        return cls

    def _stands(self, cls: type[Operator], spec: Spec, place: str) -> None:
        assert issubclass(cls, Position)
        if place not in cls.stands:
            raise Illegal(f"{spec.name} stands at the position of a {_any(cls.stands)}, not of a {place}")

    def _supplies(self, spec: Spec) -> frozenset[str]:
        if spec is NONE:
            return _EMPTY
        cls = self.catalogue.get("position", spec.name)
        assert issubclass(cls, Position)
        return cls.supplies

    def _reads(self, spec: Spec) -> frozenset[str]:
        if spec is NONE:
            return _EMPTY
        cls = self.catalogue.get("reduction", spec.name)
        assert issubclass(cls, Reduction)
        return cls.reads

    def _left(self, form: Form, emits: frozenset[str]) -> frozenset[str]:
        """What a block leaves to the next one: by its mixer, or by its reduction; only what some operator reads."""
        if form.reduction is NONE:
            scored = {"queries", "keys"} <= emits and form.class_token
            return (emits | {"class_attention"} if scored else emits) & self._read_later
        cls = self.catalogue.get("reduction", form.reduction.name)
        assert issubclass(cls, Reduction)
        return cls.emits & self._read_later

    @cached_property
    def _read_later(self) -> frozenset[str]:
        """Every word that some operator reads of the block before."""
        later = [cls for _, _, cls in self.catalogue.every() if issubclass(cls, (Mixer, Reduction))]
        return frozenset().union(*(cls.reads_previous | cls.uses_previous for cls in later))

    def _reduce(self, form: Form, where: str) -> Form:
        """The form once the open reduction acted at this place; "after" also gives restored tokens back."""
        if form.reduction is NONE:
            return form
        cls = self.catalogue.get("reduction", form.reduction.name)
        assert issubclass(cls, Reduction)
        if where == "after" and cls.restores:
            return form._replace(layout=GRID, unit=0, reduction=NONE)
        if cls.where == where:
            form = form._replace(previous=_EMPTY)  # of other tokens
            if cls.leaves is not None:
                form = form._replace(layout=cls.leaves, unit=cls.unit_left(**dict(form.reduction.knobs)))
        over = where != "before" and cls.where != "after" and not cls.restores
        return form._replace(reduction=NONE) if over else form


def _all(names: frozenset[str]) -> str:
    return " and ".join(sorted(names))


def _any(names: frozenset[str]) -> str:
    return " or ".join(sorted(names))
