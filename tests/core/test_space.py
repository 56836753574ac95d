"""Spaces against brute force, with rules of their own: sizes, samples, neighbours, membership, files."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from nas.core.architecture import NONE, Architecture, Block, Stage
from nas.core.errors import InputError
from nas.core.space import Illegal, Space, write_architecture
from nas.core.spec import Spec, parse_choices
from nas.core.yamlfile import parse_yaml

# -- rules with memory, and the same rules over whole networks --------------------------------------------------------

KNOWN = {
    "embed": ["e", "half"],
    "mixer": ["a", "b", "c", "wide"],
    "feedforward": ["f", "g"],
    "position": ["p"],
    "reduction": ["drop"],
    "exit": ["x"],
    "norm": ["layer", "batch"],
    "head": ["mean", "cls"],
}


class Held(NamedTuple):
    """What the fake rules remember."""

    side: int = 0
    dim: int = 0
    token: bool = False
    last: str = ""
    dropped: bool = False


class Fake:
    """`Rules` without torch. Every operator has the knob `n`, a number with the default 1."""

    def specs(self, kind: str, text: str, place: str) -> list[Spec]:
        made = []
        for spec in parse_choices(text, place):
            if spec.name != "none" and spec.name not in KNOWN[kind]:
                raise InputError(f"unknown {kind}", value=spec.name, place=place)
            n = float(spec.get("n", 1))
            made.append(Spec(spec.name) if n == 1 else Spec(spec.name, n=n))
        return made

    def start(self, channels: int) -> Held:
        return Held(dim=channels)

    def active(self, form: Held, kind: str) -> bool:
        return True

    def advance(self, form: Held, kind: str, value: Any) -> Held:
        name = value.name if isinstance(value, Spec) else ""
        match kind:
            case "input":
                return form._replace(side=value)
            case "stage.dim":
                if value < form.dim:
                    raise Illegal(f"width {value} after {form.dim}")
                return form._replace(dim=value)
            case "stage.class_token":
                return form._replace(token=form.token or value)
            case "stage.embed" if name == "half":
                if form.side % 2:
                    raise Illegal(f"{form.side} is odd")
                return form._replace(side=form.side // 2)
            case "reduction" if name == "drop":
                if form.dropped:
                    raise Illegal("drop is done once")
                return form._replace(dropped=True)
            case "mixer":
                if name == "b" and form.last == "a":
                    raise Illegal("b after a")
                if name == "wide" and form.dim % 3:
                    raise Illegal(f"wide takes widths of 3, not {form.dim}")
                if name == "c" and form.dropped:
                    raise Illegal("c after drop")
                return form._replace(last=name)
            case "head" if name == "cls" and not form.token:
                raise Illegal("cls reads the class token")
        return form


RULES = Fake()


def legal(network: Architecture) -> bool:
    """The rules, over a whole network."""
    dims = [network.channels, *(stage.dim for stage in network.stages)]
    mixers = [block.mixer.name for block in network.blocks]
    drops = [index for index, block in enumerate(network.blocks) if block.reduction.name == "drop"]
    halvings = sum(stage.embed.name == "half" for stage in network.stages)
    return (
        dims == sorted(dims)
        and ("a", "b") not in itertools.pairwise(mixers)
        and not any(b.mixer.name == "wide" and stage.dim % 3 for stage in network.stages for b in stage.blocks)
        and len(drops) < 2
        and not (drops and "c" in mixers[drops[0] :])
        and network.input % 2**halvings == 0
        and (network.head.name != "cls" or any(stage.class_token for stage in network.stages))
    )


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def operators(kind: str, mapping: dict[str, Any], default: Spec = NONE) -> list[Spec]:
    return [spec for text in listed(mapping.get(kind, str(default))) for spec in RULES.specs(kind, text, "")]


def blocks_of(entry: dict[str, Any]) -> list[Block]:
    kinds = ("mixer", "feedforward", "position", "reduction", "exit")
    found = [operators(kind, entry) for kind in kinds] + [operators("norm", entry, Spec("layer"))]
    others = [listed(entry.get("residual", "split")), listed(entry.get("layer_scale"))]
    return [Block(*values) for values in itertools.product(*found, *others)]


def stages_of(stage: dict[str, Any]) -> Iterator[Stage]:
    runs = []
    for entry in stage.get("blocks", []):
        one = blocks_of(entry)
        runs.append([run for count in listed(entry.get("repeat", 1)) for run in itertools.product(one, repeat=count)])
    fields = [
        listed(stage.get(key, default))
        for key, default in (("class_token", False), ("distill_token", False), ("registers", 0))
    ]
    for embed, dim, blocks, token, distill, registers, position, norm in itertools.product(
        operators("embed", stage),
        listed(stage["dim"]),
        itertools.product(*runs),
        *fields,
        operators("position", stage),
        [Spec(text) for text in listed(stage.get("end_norm", "none"))],
    ):
        yield Stage(embed, dim, tuple(itertools.chain(*blocks)), token, distill, registers, position, norm)


def brute(document: dict[str, Any]) -> set[Architecture]:
    """Every legal network of a document, by trying every combination."""
    found = set()
    for layout in document.get("layouts", {"": document}).values():
        stages = itertools.product(*(list(stages_of(stage)) for stage in layout["stages"]))
        for made, head, side in itertools.product(
            stages, operators("head", layout), listed(document.get("input", 224))
        ):
            found.add(Architecture(made, head, side, document.get("channels", 3), document.get("classes", 1000)))
    return {network for network in found if legal(network)}


def plain(*blocks: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """A document of one stage."""
    top: dict[str, Any] = {key: keys.pop(key) for key in ("input", "head", "classes", "channels") if key in keys}
    return {"stages": [{"embed": "e", "dim": 8, "blocks": list(blocks), **keys}], "head": "mean", **top}


TWO = {"embed": "half", "dim": [8, 9, 12], "blocks": [{"repeat": [0, 1], "mixer": ["a", "wide"]}]}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "one network": plain({"mixer": "a"}),
    "no block": plain(),
    "knobs": plain({"repeat": 2, "mixer": "a(n=[1, 2, 2.5])", "feedforward": ["f", "g(n=[3, 4])"]}),
    "memory": plain({"repeat": [1, 2, 3], "mixer": ["a", "b", "c"]}),
    "neighbours that stand for each other": plain(
        {"repeat": [0, 1, 2], "mixer": ["a", "b"]},
        {"repeat": [1, 2], "mixer": ["b", "a"]},
        {"repeat": [0, 1], "mixer": "b"},
    ),
    "neighbours that overlap": plain({"repeat": [0, 2], "mixer": ["a", "c"]}, {"repeat": [1, 2], "mixer": ["c", "b"]}),
    "repeat 0 alone": plain({"repeat": 0, "mixer": "a"}, {"repeat": [0, 2], "mixer": ["c", "wide"]}),
    "class token": plain({"mixer": ["a", "b"]}, class_token=[False, True], registers=[0, 4], head=["mean", "cls"]),
    "two stages": {"input": [16, 17, 18], "stages": [TWO, {**TWO, "embed": ["none", "half"]}], "head": ["mean", "cls"]},
    "dead ends": plain({"mixer": ["a", "b", "c"]}, {"mixer": ["b", "wide"]}, dim=[8, 9]),
    "one drop": plain(
        {"repeat": [1, 2], "mixer": ["a", "c"], "reduction": ["none", "drop"]}, {"repeat": 1, "mixer": ["c", "b"]}
    ),
    "every field": plain(
        {
            "mixer": ["none", "a"],
            "feedforward": ["none", "f"],
            "position": ["none", "p"],
            "reduction": ["none", "drop"],
            "exit": ["none", "x"],
            "norm": ["layer", "batch"],
            "residual": ["split", "joint"],
            "layer_scale": [None, 0, 1, 1.0e-4],
        },
        distill_token=[True, False],
        position=["p", "none"],
        end_norm=["none", "batch"],
    ),
    "layouts that overlap": {
        "layouts": {
            "one": {
                "stages": [{"embed": "e", "dim": [8, 9], "blocks": [{"mixer": ["a", "b"]}]}],
                "head": ["mean", "cls"],
            },
            "other": {
                "stages": [{"embed": "e", "dim": 9, "blocks": [{"repeat": [0, 1, 2], "mixer": ["a", "wide"]}]}],
                "head": "mean",
            },
            "deeper": {"stages": [{"embed": "e", "dim": 8}, {"embed": "half", "dim": 8}], "head": "mean"},
        }
    },
    "a layout within another": {
        "layouts": {
            "small": {"stages": [{"embed": "e", "dim": 8, "blocks": [{"mixer": "a"}]}], "head": "mean"},
            "large": {"stages": [{"embed": "e", "dim": 8, "blocks": [{"mixer": ["a", "c"]}]}], "head": "mean"},
        }
    },
}
SPACES = {name: Space.parse(document, RULES, name) for name, document in DOCUMENTS.items()}
NETWORKS = {name: brute(document) for name, document in DOCUMENTS.items()}
every_space = pytest.mark.parametrize("name", DOCUMENTS)


@every_space
def test_size_is_the_number_of_different_networks(name: str) -> None:
    space, networks = SPACES[name], NETWORKS[name]
    assert set(space.every()) == networks
    assert space.size == len(networks)


ENTRY = st.fixed_dictionaries(
    {
        "repeat": st.lists(st.integers(0, 2), min_size=1, max_size=2, unique=True),
        "mixer": st.lists(
            st.sampled_from(["a", "b", "c", "wide", "none", "a(n=2)"]), min_size=1, max_size=2, unique=True
        ),
    },
    optional={"reduction": st.sampled_from(["drop", ["none", "drop"]])},
)
STAGE = st.fixed_dictionaries(
    {
        "embed": st.sampled_from(["e", "half", ["half", "none"]]),
        "dim": st.lists(st.sampled_from([8, 9]), min_size=1, max_size=2, unique=True),
        "blocks": st.lists(ENTRY, max_size=2),
    },
    optional={"class_token": st.sampled_from([True, [False, True]])},
)
LAYOUT = st.fixed_dictionaries(
    {"stages": st.lists(STAGE, min_size=1, max_size=2), "head": st.sampled_from(["mean", "cls", ["mean", "cls"]])}
)


@given(
    layouts=st.lists(LAYOUT, min_size=1, max_size=2), side=st.sampled_from([16, [16, 18], 17]), seed=st.integers(0, 99)
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_any_small_space_is_what_brute_force_finds(layouts: list[dict[str, Any]], side: Any, seed: int) -> None:
    document = {"input": side, "layouts": {f"l{i}": layout for i, layout in enumerate(layouts)}}
    networks = brute(document)
    try:
        space = Space.parse(document, RULES)
    except InputError:
        assert not networks
        return
    assert set(space.every()) == networks and space.size == len(networks)
    random = Random(seed)
    first, second = space.sample(random), space.sample(random, uniform=True)
    assert {first, second, space.crossover(first, second, random)} <= networks
    for rate in (0.0, 0.5):
        child = space.mutate(first, random, rate)
        assert child in networks and (child != first or len(networks) == 1)


# -- samples ----------------------------------------------------------------------------------------------------------


@every_space
def test_every_sample_is_legal_and_in_the_space(name: str) -> None:
    space, random = SPACES[name], Random(0)
    for uniform in (False, True):
        sampled = {space.sample(random, uniform) for _ in range(200)}
        assert sampled <= NETWORKS[name]
        assert all(network in space for network in sampled)


@pytest.mark.parametrize(
    "name", ["memory", "neighbours that stand for each other", "two stages", "layouts that overlap", "one drop"]
)
def test_uniform_samples_are_uniform(name: str) -> None:
    """However many ways of repeating, and however many layouts, lead to a network."""
    space, random = SPACES[name], Random(1)
    drawn = Counter(space.sample(random, uniform=True) for _ in range(40 * space.size))
    assert len(drawn) == space.size
    assert chisquare([drawn[network] for network in NETWORKS[name]]).pvalue > 0.01


def test_plain_samples_are_balanced_over_operators_then_knobs() -> None:
    space, random = Space.parse(plain({"mixer": ["a(n=[1, 2, 3, 4])", "c"]}), RULES), Random(2)
    drawn = Counter(str(space.sample(random).blocks[0].mixer) for _ in range(4000))
    assert (
        chisquare(
            [drawn[f"a{n}"] for n in ("", "(n=2.0)", "(n=3.0)", "(n=4.0)")] + [drawn["c"]], [500] * 4 + [2000]
        ).pvalue
        > 0.01
    )


def test_uniform_samples_of_an_astronomical_space() -> None:
    """Counts exceed any float: depth d has 3**d networks, so nearly all have the greatest."""
    space = Space.parse(plain({"repeat": list(range(1, 71)), "mixer": ["c", "none", "a"]}), RULES)
    assert space.size == sum(3**d for d in range(1, 71))
    random = Random(3)
    depths = [len(space.sample(random, uniform=True).blocks) for _ in range(30)]
    assert min(depths) > 60 and depths.count(70) > 10


def test_same_seed_same_networks() -> None:
    assert drawn() == drawn()


def drawn() -> list[str]:
    """Digests of what each way of drawing gives, over all spaces, from fresh spaces."""
    found = []
    for name, document in DOCUMENTS.items():
        space, random = Space.parse(document, RULES, name), Random(4)
        first, second = space.sample(random), space.sample(random, uniform=True)
        found += [
            first,
            second,
            space.mutate(first, random),
            space.mutate(first, random, 0.5),
            space.crossover(first, second, random),
        ]
        found += sorted(NETWORKS[name], key=lambda network: network.digest)[:2]
    return [network.digest for network in found]


def test_another_process_agrees() -> None:
    """Samples and digests hang on no hash seed; a pickled network is the same network there."""
    network = SPACES["every field"].sample(Random(5))
    assert network.digest and hash(network)  # both are kept on the value, and only the digest may travel
    code = (
        "import pickle, sys\nfrom tests.core.test_space import SPACES, drawn\n"
        "network = pickle.loads(sys.stdin.buffer.read())\n"
        "fresh = {n: n for n in SPACES['every field'].every()}[network]\n"
        "assert fresh == network and hash(fresh) == hash(network) and fresh.digest == network.digest\n"
        "print(*drawn(), sep='\\n')"
    )
    root = str(Path(__file__).parents[2])
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env=environment, cwd=root, input=pickle.dumps(network), capture_output=True)
    assert ended.stdout.decode().splitlines() == drawn(), ended.stderr.decode()


# -- neighbours -------------------------------------------------------------------------------------------------------


@every_space
def test_a_mutation_is_another_network_of_the_space(name: str) -> None:
    space, networks, random = SPACES[name], NETWORKS[name], Random(6)
    for network in sorted(networks, key=lambda network: network.digest)[:40]:
        for rate in (0.0, 0.3, 1.0):
            child = space.mutate(network, random, rate)
            assert child in networks
            assert (child == network) == (len(networks) == 1)


def test_a_mutation_changes_one_decision_where_the_rest_stays_legal() -> None:
    space, random = SPACES["knobs"], Random(7)
    parent, neighbours = space.sample(random), set()
    for _ in range(400):
        child = space.mutate(parent, random)
        assert differing(space, parent, child) == 1
        neighbours.add(child)
    assert neighbours == {network for network in NETWORKS["knobs"] if differing(space, parent, network) == 1}
    assert {differing(space, parent, space.mutate(parent, random, 1.0)) for _ in range(20)} == {4}


def differing(space: Space, one: Architecture, other: Architecture) -> int:
    pairs = zip(space.decisions(one) or (), space.decisions(other) or (), strict=True)
    return sum(first != second for first, second in pairs)


def test_mutations_reach_the_whole_space() -> None:
    for name in ("memory", "two stages", "layouts that overlap", "dead ends"):
        space, random = SPACES[name], Random(8)
        network = space.sample(random)
        seen = {network}
        for _ in range(30 * space.size):
            network = space.mutate(network, random)
            seen.add(network)
        assert seen == NETWORKS[name]


@pytest.mark.parametrize("name", ["memory", "class token", "two stages", "dead ends", "one drop", "knobs"])
def test_a_child_takes_each_decision_from_a_parent_where_legal(name: str) -> None:
    """Where: some network of the space has it after the decisions before; otherwise it is drawn from those that do.

    Blocks of an entry are counted from its end; for a block that a parent lacks, its first one there stands."""
    space, random = SPACES[name], Random(9)
    paths = {network: values_of(space, network) for network in NETWORKS[name]}
    possible = {path[: i + 1] for path in paths.values() for i in range(len(path))}
    networks = sorted(paths, key=lambda network: network.digest)
    mixed = 0
    for _ in range(60):
        parents = random.sample(networks, 2)
        child = space.crossover(parents[0], parents[1], random)
        mixed += child not in parents
        path = paths[child]
        theirs = [aligned(paths[parent]) for parent in parents]
        for i, ((place, value), label) in enumerate(zip(path, labels(path), strict=True)):
            entry = (*label[:2], "first", label[-1])
            offered = [own.get(label, own.get(entry)) for own in theirs if label in own or entry in own]
            taken = [option for option in offered if (*path[:i], (place, option)) in possible]
            assert value in taken or not taken
    assert mixed > 5
    assert space.crossover(networks[0], networks[0], random) == networks[0]


def labels(path: tuple[tuple[str, Any], ...]) -> list[tuple[Any, ...]]:
    """What each decision is: its place, or of a block its stage, its entry, blocks left in it, and the field."""
    found: list[tuple[Any, ...]] = []
    entry, ends = "", 0
    for place, value in path:
        if place.endswith("repeat"):
            start = ends if entry.partition(".")[0] == place.partition(".")[0] else 0
            entry, ends = place, start + value
        if ".blocks[" in place:
            stage, _, rest = place.partition(".blocks[")
            number, _, field = rest.partition("].")
            found.append((stage, entry, ends - int(number), field))
        else:
            found.append((place,))
    return found


def aligned(path: tuple[tuple[str, Any], ...]) -> dict[tuple[Any, ...], Any]:
    """The value of each decision by its label, and those of the first block of each entry."""
    found: dict[tuple[Any, ...], Any] = {}
    for (_, value), label in zip(path, labels(path), strict=True):
        found[label] = value
        if len(label) == 4:
            found.setdefault((*label[:2], "first", label[-1]), value)
    return found


def values_of(space: Space, network: Architecture) -> tuple[tuple[str, Any], ...]:
    path = space.decisions(network)
    assert path is not None
    return tuple((decision.place, decision.value) for decision in path)


@pytest.mark.parametrize("name", ["memory", "class token", "two stages", "dead ends", "every field"])
def test_reachable_is_what_the_networks_have(name: str) -> None:
    """Dead ends are never entered: a place offers exactly the values that complete networks have there."""
    space = SPACES[name]
    offered = {(place, value) for place, _, values, _ in space.reachable() for value in values}
    assert offered == {step for network in NETWORKS[name] for step in values_of(space, network)}


# -- membership -------------------------------------------------------------------------------------------------------


@every_space
def test_what_another_space_holds_is_in_this_one_only_if_it_is(name: str) -> None:
    space, networks = SPACES[name], NETWORKS[name]
    for other in NETWORKS.values():
        for network in sorted(other, key=lambda network: network.digest)[:30]:
            assert (network in space) == (network in networks)


@every_space
def test_non_members(name: str) -> None:
    space, networks = SPACES[name], NETWORKS[name]
    for network in sorted(networks, key=lambda network: network.digest)[:5]:
        for stranger in strangers(network):
            if stranger not in networks:
                assert stranger not in space
                assert space.decisions(stranger) is None
                with pytest.raises(InputError, match="not in this space"):
                    space.mutate(stranger, Random(0))
                with pytest.raises(InputError, match="not in this space"):
                    space.crossover(network, stranger, Random(0))


def strangers(network: Architecture) -> Iterator[Architecture]:
    """Networks that differ in one thing."""
    swap: Callable[..., Architecture] = lambda **keys: dataclasses.replace(network, **keys)  # noqa: E731
    yield from (
        swap(classes=7),
        swap(channels=1),
        swap(input=9),
        swap(head=Spec("other")),
        swap(head=NONE),
        swap(stages=()),
    )
    yield from (swap(stages=network.stages * 2), swap(stages=network.stages[:-1]), swap(stages=network.stages[1:]))
    last = network.stages[-1]
    added = Block(mixer=Spec("a", n=9.0))
    for keys in (
        {"blocks": (*last.blocks, added)},
        {"blocks": (added, *last.blocks)},
        {"blocks": last.blocks[1:]},
        {"blocks": last.blocks * 9},
        {"dim": 7},
        {"embed": NONE},
        {"registers": 3},
        {"position": Spec("p", n=9.0)},
        {"end_norm": Spec("rms")},
    ):
        yield swap(stages=(*network.stages[:-1], dataclasses.replace(last, **keys)))


def test_membership_takes_no_time_however_blocks_may_be_shared_out() -> None:
    """Sixty entries of no or one block stand for each other: a search without memory would not end."""
    space = Space.parse(plain(*[{"repeat": [0, 1], "mixer": ["a", "c"]}] * 60), RULES)
    assert space.size == sum(2**d for d in range(61))
    network = space.sample(Random(0), uniform=True)
    assert network in space
    assert dataclasses.replace(network, head=Spec("cls")) not in space


def test_four_hundred_blocks() -> None:
    """The most that a file may have: no walk runs out of stack."""
    deep = [{"repeat": 100, "mixer": ["c", "none"]}] * 4
    space, random = Space.parse(plain(*deep), RULES), Random(0)
    assert space.size == 2**400
    one, two = space.sample(random), space.sample(random, uniform=True)
    assert one in space and space.mutate(one, random) in space and space.crossover(one, two, random) in space
    only = Space.parse(plain(*[{"repeat": 100, "mixer": "c"}] * 4), RULES).only()
    assert len(only.blocks) == 400 and read(write_architecture(only)).only() == only
    with pytest.raises(InputError, match=r"blocks\[4\].mixer: b after a"):
        Space.parse(plain(*deep[:3], {"repeat": 99, "mixer": "a"}, {"mixer": "b"}), RULES)


# -- spaces without a network -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "place", "message"),
    [
        (plain({"repeat": 3, "mixer": "a"}, {"mixer": "b"}), "stages[0].blocks[1].mixer", "b after a: 'b'"),
        (
            plain({"mixer": ["a", "wide"]}, {"repeat": [1, 2], "mixer": "b(n=2)"}),
            "stages[0].blocks[1].mixer",
            "b after a: 'b(n=2.0)'",
        ),
        (plain({"repeat": 2, "reduction": "drop"}), "stages[0].blocks[0].reduction", "drop is done once: 'drop'"),
        (plain(head="cls"), "head", "cls reads the class token: 'cls'"),
        (plain(input=[15, 17], embed="half"), "stages[0].embed", "15 is odd: 'half'"),
        (plain(dim=2), "stages[0].dim", "width 2 after 3: 2"),
        (
            {
                "layouts": {
                    name: {"stages": [{"embed": "e", "dim": d}], "head": "cls"} for name, d in (("x", 2), ("y", 9))
                }
            },
            "layouts.y.head",
            "cls reads the class token",
        ),
        (
            {"layouts": {"x": {"stages": [{"embed": "e", "dim": 9}, {"embed": "e", "dim": [4, 8]}], "head": "mean"}}},
            "layouts.x.stages[1].dim",
            "width 4 after 9: 4",
        ),
    ],
)
def test_a_space_of_illegal_networks_is_refused_with_rule_and_place(document: Any, place: str, message: str) -> None:
    """The rule that is broken furthest down, at the key of the file."""
    assert not brute(document)
    with pytest.raises(InputError) as refused:
        Space.parse(document, RULES, "mine.yaml")
    assert str(refused.value).startswith(f"mine.yaml: {place}: {message}")


def test_too_large_to_count_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    document = plain({"mixer": ["a", "b", "c"]}, dim=list(range(8, 200)))
    assert Space.parse(document, RULES).size == 192 * 3
    monkeypatch.setattr("nas.core.automaton.MAX_STATES", 100)
    with pytest.raises(InputError, match=r"mine.yaml: the space is too large: over 100 states"):
        Space.parse(document, RULES, "mine.yaml")
    monkeypatch.setattr("nas.core.automaton.MAX_STATES", 10_000)
    space = Space.parse(document, RULES, "mine.yaml")
    monkeypatch.setattr("nas.core.automaton.MAX_STATES", 100)
    with pytest.raises(InputError, match="the space is too large"):
        _ = space.size


# -- files ------------------------------------------------------------------------------------------------------------


def read(text: str) -> Space:
    return Space.parse(parse_yaml(text, "file"), RULES)


@every_space
def test_a_network_is_read_back_equal_from_its_file(name: str) -> None:
    for network in sorted(NETWORKS[name], key=lambda network: network.digest)[:25]:
        text = write_architecture(network, name)
        space = read(text)
        assert space.name == name and space.size == 1
        again = space.only()
        assert again == network and hash(again) == hash(network) and again.digest == network.digest
        assert write_architecture(again, name) == text


@every_space
def test_different_networks_have_different_digests_and_files(name: str) -> None:
    networks = NETWORKS[name]
    assert (
        len({network.digest for network in networks}) == len({write_architecture(n) for n in networks}) == len(networks)
    )


def test_a_space_of_several_is_no_architecture() -> None:
    with pytest.raises(InputError, match="an architecture has one value at every place: '2 networks'"):
        Space.parse(plain({"mixer": ["a", "b"]}), RULES).only()


SHORT = "stages: [{embed: e, dim: 8, blocks: [{repeat: 2, mixer: 'a(n=2)', layer_scale: 1}]}]\nhead: mean\n"
LONG = """\
name: spelt out
head: [mean()]
classes: 1000
channels: 3
input: [224]
stages:
  - blocks:
      - {layer_scale: 1.0, mixer: ["a( n = [2.0] )"], repeat: [1], feedforward: none, exit: null, reduction: None}
      - {mixer: a(n=2e0), layer_scale: [1.00], residual: split, norm: layer(n=1), position: none}
      - {repeat: 0, mixer: wide}
    end_norm: none
    position: [none]
    registers: 0
    distill_token: false
    class_token: [false]
    dim: [8]
    embed: e(n=1.0)
"""


def test_equal_networks_are_equal_however_they_are_spelt() -> None:
    short, long = read(SHORT).only(), read(LONG).only()
    assert short == long and hash(short) == hash(long) and short.digest == long.digest
    assert write_architecture(short) == write_architecture(long)
    made = Block(Spec("a", n=2.0), layer_scale=1)
    by_hand = Architecture((Stage(Spec("e"), 8, (made, dataclasses.replace(made, layer_scale=1.0))),), Spec("mean"))
    assert by_hand == short and by_hand.digest == short.digest


def test_a_file_has_no_defaults_and_joins_equal_neighbours() -> None:
    assert read(LONG).only().to_dict() == {
        "stages": [{"embed": "e", "dim": 8, "blocks": [{"repeat": 2, "mixer": "a(n=2.0)", "layer_scale": 1.0}]}],
        "head": "mean",
    }
    assert Architecture((), NONE, 224, 3, 1000).to_dict() == {"stages": [], "head": "none"}
    assert Architecture((), NONE, 32, 1, 10).to_dict() == {
        "input": 32,
        "channels": 1,
        "classes": 10,
        "stages": [],
        "head": "none",
    }


def test_nearer_defaults_of_blocks_win() -> None:
    document = {
        "block": {"mixer": "a", "feedforward": "f", "norm": "batch", "repeat": 2},
        "stages": [
            {"embed": "e", "dim": 8, "blocks": [{}, {"mixer": "c", "repeat": 1}]},
            {"embed": "e", "dim": 8, "block": {"feedforward": "g"}, "blocks": [{"norm": "layer"}]},
        ],
        "head": "mean",
    }
    blocks = [(str(b.mixer), str(b.feedforward), str(b.norm)) for b in Space.parse(document, RULES).only().blocks]
    assert blocks == [("a", "f", "batch")] * 2 + [("c", "f", "batch")] + [("a", "g", "layer")] * 2
    inner = {"layouts": {"l": {"stages": document["stages"], "head": "mean", "block": {"norm": "layer"}}}}
    layout = Space.parse({"block": document["block"], **inner}, RULES).only()
    assert [str(b.norm) for b in layout.blocks] == ["layer"] * 5


def test_values_are_frozen_and_copies_equal() -> None:
    network = SPACES["every field"].sample(Random(0))
    assert network.digest and len(network.blocks) == 1
    assert pickle.loads(pickle.dumps(network)) == network
    with pytest.raises(dataclasses.FrozenInstanceError):
        network.input = 3  # type: ignore[misc]
    other = dataclasses.replace(network, input=32)
    assert other != network and other.digest != network.digest
