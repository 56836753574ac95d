"""Bad files end in one message that names file, key path, rule and nearest names; never in a traceback."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.bench import main
from nas.core.data import data_folder
from nas.core.errors import InputError
from nas.core.space import BlockTemplate, Space, StageTemplate
from nas.core.yamlfile import MAX_BYTES, load_yaml
from nas.model.costs import Costs
from nas.model.spaces import load_named_space, shared_rules
from nas.ops.catalogue import catalogue, knob_defaults
from tests.doors import refused

GOOD = """\
input: 32
classes: 10
stages:
  - embed: patch(size=4)
    dim: 32
    class_token: true
    blocks:
      - repeat: 2
        mixer: softmax(heads=2)
        feedforward: mlp
head: class_token
"""
BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def changed(old: str, new: str) -> str:
    """The good file with one thing wrong."""
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


# Each: the file, the place named after it, and what else the message says.
FILES: dict[str, tuple[str, str, list[str]]] = {
    "unknown mixer": (
        changed("softmax", "sofmax"),
        ": stages[0].blocks[0].mixer: ",
        ["unknown mixer: 'sofmax'", "nearest: softmax"],
    ),
    "unknown embed": (changed("patch", "path"), ": stages[0].embed: ", ["unknown embed: 'path'", "nearest: patch"]),
    "unknown head": (
        changed("head: class_token", "head: class_tokn"),
        ": head: ",
        ["unknown head: 'class_tokn'", "nearest: class_token"],
    ),
    "an operator of another kind": (
        changed("feedforward: mlp", "feedforward: softmax"),
        ".feedforward: ",
        ["unknown feedf"],
    ),
    "unknown norm": (
        changed("repeat", "norm: layr\n        repeat"),
        ".norm: ",
        ["unknown norm: 'layr'", "nearest: layer"],
    ),
    "unknown knob": (
        changed("heads", "head"),
        "blocks[0].mixer: ",
        ["unknown knob of softmax: 'head'", "nearest: heads"],
    ),
    "a knob named like an argument": (
        changed("heads=2", "name=2"),
        "blocks[0].mixer: ",
        ["unknown knob of softmax: 'name'"],
    ),
    "a knob from the stage": (changed("size=4", "dim=4"), ": stages[0].embed: ", ["unknown knob of patch: 'dim'"]),
    "a value of another type": (
        changed("heads=2", "heads=two"),
        ".mixer: ",
        ["heads is a whole number from 1 to 64: 'two'"],
    ),
    "a value out of range": (changed("size=4", "size=0"), ".embed: ", ["size is a whole number from 1 to 64: 0"]),
    "a number of hundreds of digits": (
        changed("feedforward: mlp", f"feedforward: mlp(ratio={'9' * 400})"),
        ".feedforward: ",
        ["mlp: ratio is a number from"],
    ),
    "a scale of hundreds of digits": (
        changed("repeat", f"layer_scale: {'9' * 400}\n        repeat"),
        ".layer_scale: ",
        ["none, or"],
    ),
    "a call as a value": (
        changed("heads=2", "heads=print(2)"),
        ".mixer: heads: ",
        ["a number, word, tuple", "print(2)"],
    ),
    "an operator that is no word": (
        changed("patch(size=4)", "'4'"),
        ".embed: ",
        ["an operator is written name or name(knob"],
    ),
    "an operator that is a number": (
        changed("patch(size=4)", "4"),
        ".embed: ",
        ["an operator is written name or name(knob"],
    ),
    "an empty list": (changed("head: class_token", "head: []"), ": head: ", ["at least one entry"]),
    "a choice listed twice": (changed("heads=2", "heads=[2, 2]"), ".mixer: heads: ", ["each choice is listed once: 2"]),
    "an entry listed twice": (
        changed("head: class_token", "head: [mean, mean]"),
        ": head: ",
        ["each choice is listed once"],
    ),
    "a width listed twice": (
        changed("dim: 32", "dim: [32, 32]"),
        ": stages[0].dim: ",
        ["each choice is listed once: 32"],
    ),
    "heads that do not divide": (
        changed("heads=2", "heads=5"),
        ": stages[0].blocks[0].mixer: ",
        ["5", "32", "'softmax(heads=5)'"],
    ),
    "an image that is not divisible": (
        changed("size=4", "size=5"),
        ": stages[0].embed: ",
        ["32x32 is not divisible by size 5"],
    ),
    "no class token": (changed("class_token: true", "registers: 1"), ": head: ", ["reads the class token"]),
    "no head": (changed("head: class_token", ""), ": ", ["a network needs a head"]),
    "head none": (changed("head: class_token", "head: none"), ": head: ", ["a network needs a head"]),
    "no stages": ("head: mean\n", ": ", ["either stages or layouts"]),
    "no embed": (changed("embed: patch(size=4)", "registers: 0"), ": stages[0]: ", ["a stage needs embed"]),
    "no dim": (changed("dim: 32", "registers: 0"), ": stages[0]: ", ["a stage needs dim"]),
    "stages that are a mapping": (
        "stages: {embed: patch, dim: 3}\nhead: mean",
        ": stages: ",
        ["a list of 1 to 16 stages"],
    ),
    "blocks that are a mapping": (changed("- repeat: 2", "  repeat: 2"), ": stages[0].blocks: ", ["a list of blocks"]),
    "a block that is text": (
        changed("- repeat: 2", "- softmax\n      - repeat: 2"),
        ".blocks[0]: ",
        ["a mapping is expected: 'softmax'"],
    ),
    "layouts that are a list": ("layouts: [a]", ": layouts: ", ["a mapping of names"]),
    "a list for one value": (changed("classes: 10", "classes: [10, 20]"), ": classes: ", ["one value expected"]),
    "unknown key": (changed("input: 32", "inputs: 32"), ": ", ["unknown key: 'inputs'", "nearest: input"]),
    "unknown key of a stage": (changed("dim: 32", "width: 32"), ": stages[0]: ", ["unknown key: 'width'"]),
    "unknown key of a block": (
        changed("repeat", "depth"),
        ": stages[0].blocks[0]: ",
        ["unknown key: 'depth'", "nearest: repeat"],
    ),
    "duplicate key": (
        changed("classes: 10", "input: 64"),
        ":2:1: ",
        ["each key is given once (first on line 1): 'input'"],
    ),
    "a number of base 60": (changed("input: 32", "input: 1:30"), ":1:8: ", ["not a decimal number", "'1:30'"]),
    "not a number": (changed("dim: 32", "dim: .nan"), ":5:10: ", ["numbers are finite", "'.nan'"]),
    "not a number, spelt out": (changed("dim: 32", "dim: NaN"), ":5:10: ", ["numbers are finite", "'NaN'"]),
    "infinite": (changed("heads=2", "temperature=1e999"), ".mixer: temperature: ", ["numbers are finite"]),
    "a tag": (changed("input: 32", "input: !!python/object:os.system [ls]"), ":1:8: ", ["tags are not used"]),
    "no file of words": ("just words", ": ", ["a mapping is expected: 'just words'"]),
    "an empty file": ("", ": ", ["the file is empty"]),
    "ten megabytes": (GOOD + "# " + "x" * 10_000_000, ": ", [f"at most {MAX_BYTES} bytes"]),
    "an alias bomb": (BOMB, ":5:36: ", ["at most 100000 nodes"]),
    "levels without end": ("[" * 5000, ":1:65: ", ["at most 64 levels"]),
    "an entry without end": (changed("heads=2", "heads=" + "2" * 10**5), ".mixer: ", ["at most 1000 characters"]),
    "a chain of hundreds": (
        changed("heads=2", "heads=" + "+".join("1" * 400)),
        ".mixer: heads: ",
        ["a number, word, tuple"],
    ),
    "repeat 100000": (
        changed("repeat: 2", "repeat: 100000"),
        ".blocks[0].repeat: ",
        ["a whole number from 0 to 100: 100000"],
    ),
    "500 blocks": (
        GOOD.replace("head:", "  - {embed: none, dim: 32, blocks: [" + "{repeat: 100}, " * 5 + "]}\nhead:"),
        ": stages: ",
        ["400"],
    ),
    "9000 entries of no block": (
        changed("- repeat", "- {repeat: 0}\n      " * 9000 + "- repeat"),
        ": stages: ",
        ["400"],
    ),
    "17 stages": (
        changed("  - embed", "  - {embed: patch, dim: 32}\n" * 16 + "  - embed"),
        ": stages: ",
        ["1 to 16 stages"],
    ),
    "dim 0": (changed("dim: 32", "dim: 0"), ": stages[0].dim: ", ["a whole number from 1 to 16384: 0"]),
    "input 7": (changed("input: 32", "input: 7"), ": input: ", ["a whole number from 8 to 4096: 7"]),
    "classes 10**9": (
        changed("classes: 10", "classes: 1000000000"),
        ": classes: ",
        ["a whole number from 1 to 100000"],
    ),
    "a flag that is a word": (
        changed("class_token: true", "class_token: yes"),
        ".class_token: ",
        ["one of False, True: 'yes'"],
    ),
    "millions of combinations": (
        changed("heads=2", f"heads={list(range(1, 65))}, head_dim={list(range(1, 100))}, temperature=[1, 2, 3, 4]"),
        ".mixer: ",
        ["at most 20000 combinations of knobs in one entry: 25344"],
    ),
    "too many options": (
        changed(
            "- repeat",
            f"- mixer: residual_logits(heads={list(range(1, 65))}, head_dim={list(range(1, 150))})\n      " * 12
            + "- repeat",
        ),
        ".blocks[10].mixer: ",
        ["at most 100000 operators with knobs in one file"],
    ),
    "an illegal combination in a layout": (
        "input: 32\nlayouts: {a: {stages: [{embed: patch(size=4), dim: 32, class_token: true, blocks: [{repeat: 3, "
        "mixer: softmax(heads=2), feedforward: mlp}, {mixer: window(heads=2), reduction: evit}]}], head: mean}}\n",
        ": layouts.a.stages[0].blocks[1].mixer: ",
        ["evit reads keys and queries, which window does not leave", "'window(heads=2)'"],
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_one_message_with_file_place_and_rule(name: str, tmp_path: Path) -> None:
    text, place, said = FILES[name]
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        load_named_space(str(path))
    message = str(refused.value)
    assert message.startswith(f"{path}{place}") or (message.startswith(f"{path}: ") and place in message)
    assert all(words in message for words in said), message
    assert "\n" not in message and len(message) < 500


def test_the_good_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    assert len(load_named_space(str(path)).only().blocks) == 2


def test_a_file_changed_on_disk_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    assert len(load_named_space(str(path)).only().blocks) == 2
    path.write_text(GOOD.replace("repeat: 2", "repeat: 3"))
    assert len(load_named_space(str(path)).only().blocks) == 3
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        load_named_space(str(path))
    assert load_named_space("digits") is load_named_space("digits")  # a shipped space is read and counted once


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "picture.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "tiny.yaml").write_text(GOOD)
    for name, said in {
        str(tmp_path / "folder.yaml"): "the file cannot be read (Is a directory)",
        str(tmp_path / "picture.yaml"): "a YAML file is UTF-8 text",
        str(tmp_path / "tini.yaml"): "no such file (nearest: tiny.yaml",
        str(tmp_path / ("x" * 10_000 + ".yaml")): "the file cannot be read (File name too long)",
        "a\0b.yaml": "the path is not legal",
    }.items():
        with pytest.raises(InputError) as refused:
            load_named_space(name)
        assert said in str(refused.value) and refused.value.place.startswith(name)
    for name in ("tini", str(tmp_path), "", "x" * 10_000, "a\0b", "../pyproject"):
        with pytest.raises(InputError, match="unknown space") as refused:
            load_named_space(name)
        assert refused.value.value == name and refused.value.nearest
    with pytest.raises(InputError, match=r"nearest: tiny"):
        load_named_space("tini")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unknown mixer", "stages[0].blocks[0].mixer: unknown mixer: 'sofmax' (nearest: softmax)\n"),
        ("an image that is not divisible", "stages[0].embed: patch: the grid 32x32 is not divisible by size 5: "),
    ],
)
def test_a_door_ends_with_one_line_and_code_2(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(FILES[name][0])
    refused(main, ["cost", "--space", str(path), "--check", "1", "--only", str(path)])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith(f"error: {path}: {said}")


# -- mutated files ----------------------------------------------------------------------------------------------------

FOLDER = data_folder("search_spaces")
DOCUMENTS = [
    load_yaml(FOLDER / f"{name}.yaml")
    for name in ("tiny", "resnas", "digits", "reference/swin_tiny", "reference/hiera_tiny", "reference/evo_deit_small")
]
OPERATORS = [(kind, name, sorted(knob_defaults(cls))) for kind, name, cls in catalogue().every()]
LITERALS = st.integers(-2, 70).map(str) | st.text(max_size=3)
LITERALS |= st.sampled_from(
    ["0.5", "1e-6", "2.0", "true", "none", "both", "layer", "(1, 2)", "[1, 2]", "[]", "f()", "-1", "1e400"]
)
NUMBERS = [-1, 0, 1, 2, 7, 14, 48, 49, 224, 10**6, 10**400, 0.0, -0.0, 0.5, 1e300, float("nan"), float("inf")]
SCALARS: st.SearchStrategy[Any] = st.sampled_from([None, True, False, *NUMBERS]) | st.text(max_size=8)
KEYS = [field.name for cls in (BlockTemplate, StageTemplate) for field in dataclasses.fields(cls)]
KEYS += ["input", "channels", "classes", "block", "head", "layouts", "stages", "name", "reference"]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every node below."""
    keys: Any = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


@st.composite
def specs(draw: st.DrawFn, key: Any) -> str:
    """An operator of the key's kind (of any for another key) with at most two of its knobs, and seldom a wrong one."""
    same = [entry for entry in OPERATORS if entry[0] == key]
    _, name, knobs = draw(st.sampled_from(same or OPERATORS))
    given_knobs = draw(st.lists(st.tuples(st.sampled_from([*knobs, "name"]), LITERALS), max_size=2)) if knobs else []
    return f"{name}({', '.join(f'{knob}={value}' for knob, value in given_knobs)})"


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A real document with up to three nodes deleted, replaced, doubled, copied elsewhere, or given a sibling."""
    document = copy.deepcopy(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(document))
        if not found:
            break
        container, key = draw(st.sampled_from(found))
        match draw(st.sampled_from(["delete", "replace", "spec", "key", "double", "copy"])):
            case "delete":
                del container[key]
            case "replace":
                container[key] = draw(SCALARS)
            case "spec":
                container[key] = draw(specs(key))
            case "key" if isinstance(container, dict):
                added = draw(st.sampled_from(KEYS))
                container[added] = draw(SCALARS | specs(added))
            case "double" if isinstance(container, list):
                container.insert(key, copy.deepcopy(container[key]))
            case _:
                other, there = draw(st.sampled_from(found))
                container[key] = copy.deepcopy(other[there])
    return document


@given(document=mutated(), seed=st.integers(0, 9))
@settings(max_examples=120, deadline=None, derandomize=True, database=None)
def test_a_mutated_file_is_refused_or_a_space(
    document: Any, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("mutated", numbered=True) / "mine.yaml"
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    try:
        space = Space.load(path, shared_rules())
    except InputError as error:
        assert error.place.startswith(str(path)) and error.rule and len(str(error)) < 1000
        return
    network = space.sample(Random(seed))
    assert network in space
    cost = Costs().cost(network)
    assert cost.params > 0 and cost.macs > 0 and min(cost) >= 0
