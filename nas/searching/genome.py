"""Genome: an architecture as the parameters of an Optuna trial, and back.

Each decision with more than one option left on the way through the space's automaton is one categorical parameter;
the others, and those that the network does not take, are none. A name is the decision's place, `plain.stages[0].dim`,
led by its layout where the space has several. Optuna forbids a parameter's choices to differ under one name: where
the rules leave only some of the options that the file lists, or a place is reached by entries of `blocks` with
different lists, the name ends with a signature of the choices left, `stages[0].blocks[2].mixer~1f3a07`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from nas.core.architecture import Architecture
from nas.core.automaton import BLOCK_FIELDS, STAGE_FIELDS
from nas.core.errors import InputError, nearest
from nas.core.path import State
from nas.core.space import Space
from nas.core.spec import Spec
from nas.core.template import StageTemplate, Template

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import CategoricalDistribution

Ask = Callable[[str, "CategoricalDistribution"], Any]  # the choice for a parameter


def suggest(trial: Trial, space: Space) -> Architecture:
    """The network that the trial's sampler proposes; of a trial from the queue, that of the parameters it has."""
    known = trial.params

    def ask(name: str, distribution: CategoricalDistribution) -> Any:
        return known[name] if name in known else trial.suggest_categorical(name, distribution.choices)

    return propose(space, ask)


def propose(space: Space, ask: Ask) -> Architecture:
    """The network whose parameters `ask` gives, one after the other."""
    genes = _genes(space)

    def choose(place: str, state: State) -> int:
        gene = genes.at(place, state)
        return gene.number(ask(gene.name, gene.distribution))

    return space.walk(choose)


def params_of(architecture: Architecture, space: Space) -> tuple[dict[str, Any], dict[str, CategoricalDistribution]]:
    """The parameters that make a network and their distributions; InputError where it is not of the space."""
    variation, genes = space.variation, _genes(space)
    params: dict[str, Any] = {}
    distributions: dict[str, CategoricalDistribution] = {}
    for place, state, pick in variation.placed(variation.path_of(architecture)):
        if len(state.options) > 1:
            gene = genes.at(place, state)
            params[gene.name], distributions[gene.name] = gene.distribution.choices[pick], gene.distribution
    return params, distributions


def architecture_of(params: Mapping[str, Any], space: Space) -> Architecture:
    """The network of a trial's parameters; InputError where one is missing, unknown, or has no such choice."""
    asked: set[str] = set()

    def ask(name: str, distribution: CategoricalDistribution) -> Any:
        asked.add(name)
        if name not in params:
            raise InputError("a parameter is missing", value=name, place=space.name, nearest=nearest(name, params))
        return params[name]

    architecture = propose(space, ask)
    left = sorted(set(params) - asked)
    if left:
        rule = "the network of these parameters has no such parameter"
        raise InputError(rule, value=left[0], place=space.name, nearest=nearest(left[0], asked))
    return architecture


class _Gene:
    """One parameter: its name, its distribution, and which of the options its choices stand for."""

    def __init__(self, name: str, alive: Sequence[Any]):
        from optuna.distributions import CategoricalDistribution

        self.name = name
        self.distribution = CategoricalDistribution([_choice(option) for option in alive])
        self._numbers = {_key(choice): number for number, choice in enumerate(self.distribution.choices)}

    def number(self, choice: Any) -> int:
        """The number of the option of a choice; InputError where there is none."""
        try:
            return self._numbers[_key(choice)]
        except (KeyError, TypeError):
            names = nearest(choice, self.distribution.choices)
            raise InputError("the parameter has no such choice", choice, self.name, names) from None


class _Genes:
    """The parameters of a space, each made once."""

    def __init__(self, template: Template):
        self._layouts = len(template.layouts) > 1
        self._listed = _listed(template)
        self._made: dict[tuple[str, str, tuple[Any, ...]], _Gene] = {}
        self._at: dict[tuple[str, State], _Gene] = {}

    def at(self, place: str, state: State) -> _Gene:
        """The parameter of a decision."""
        gene = self._at.get((place, state))
        if gene is None:
            gene = self._at[place, state] = self._gene(place, state)
        return gene

    def _gene(self, place: str, state: State) -> _Gene:
        layout, alive = state.node.key[1] if len(state.node.key) > 1 else "", state.options
        gene = self._made.get((layout, place, alive))
        if gene is None:
            name = f"{layout}.{place}" if self._layouts and layout else place
            if alive != self._listed.get((layout, place)):
                name += f"~{_signature(alive)}"
            gene = self._made[layout, place, alive] = _Gene(name, alive)
        return gene


@lru_cache(maxsize=8)
def _genes(space: Space) -> _Genes:
    return _Genes(space.template)


def _listed(template: Template) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Layout and place to the options that the file lists there first."""
    listed: dict[tuple[str, str], tuple[Any, ...]] = {("", "input"): template.input}
    listed["", "layout"] = tuple(template.layouts)
    for name, layout in template.layouts.items():
        listed[name, "head"] = layout.head
        for i, stage in enumerate(layout.stages):
            for field in (*STAGE_FIELDS, "end_norm"):
                listed[name, f"stages[{i}].{field}"] = getattr(stage, field)
            for place, options in _listed_blocks(stage):
                listed.setdefault((name, f"stages[{i}].{place}"), options)
    return listed


def _listed_blocks(stage: StageTemplate) -> list[tuple[str, tuple[Any, ...]]]:
    """Place and options of every block that some entry of a stage's `blocks` may make, in the order of the entries."""
    found: list[tuple[str, tuple[Any, ...]]] = []
    first = last = 0  # blocks that the entries before make, at least and at most
    for j, entry in enumerate(stage.blocks):
        found.append((f"blocks({j}).repeat", entry.repeat))
        for block in range(first, last + max(entry.repeat)):
            found += [(f"blocks[{block}].{field}", getattr(entry, field)) for field in BLOCK_FIELDS]
        first, last = first + min(entry.repeat), last + max(entry.repeat)
    return found


def _choice(option: Any) -> Any:
    """An option as Optuna stores it: numbers, words and None as they are, operators as they are written."""
    return str(option) if isinstance(option, Spec) else option


def _key(choice: Any) -> Any:
    """What tells choices apart: True is not 1 here, and 1 is 1.0, which databases do not tell apart."""
    return (isinstance(choice, bool), choice)


def _signature(alive: Sequence[Any]) -> str:
    """Six hexadecimal digits that stay the same for the same choices in the same order."""
    text = json.dumps([_choice(option) for option in alive])
    return hashlib.sha256(text.encode()).hexdigest()[:6]
