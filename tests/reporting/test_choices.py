"""What was chosen, as a table, and which choices matter: against hand-made networks and figures of known make."""

from __future__ import annotations

import random

import numpy as np
import pytest

from nas.reporting.choices import choice_table, importance, short, varying
from tests.reporting.made_runs import block, network, row

PLAIN = {
    "input": 32,
    "stages": [
        {
            "embed": "patch(size=4)",
            "dim": 48,
            "class_token": True,
            "registers": 4,
            "position": "learned",
            "blocks": [
                {"repeat": 3, "mixer": "softmax(heads=2)", "feedforward": "mlp(ratio=2.0)"},
                {"mixer": "window(size=4)", "feedforward": "mlp", "position": "peg", "reduction": "tome(r=16)"},
            ],
        }
    ],
    "head": "class_token",
}
PYRAMID = {
    "stages": [
        {"embed": "strided_conv", "dim": 32, "blocks": [{"mixer": "depthwise(kernel=5)", "exit": "early"}]},
        {"embed": "patch_merging", "dim": 64, "blocks": []},
    ],
    "head": "mean",
}


def test_the_choices_of_a_plain_network() -> None:
    outline = [*[block(tokens=64)] * 3, block(tokens=64, left=48)]
    assert choice_table([{"architecture": PLAIN, "outline": outline}]) == {
        "input": [32],
        "stages": [1],
        "depth": [4],
        "embed": ["patch"],
        "width": [48],
        "mixer": ["softmax+window"],
        "feedforward": ["mlp 2+mlp"],
        "position": ["learned+peg"],
        "reduction": ["tome"],
        "tokens": ["class+registers"],
        "kept": [0.75],
        "head": ["class_token"],
    }


def test_stages_have_columns_of_their_own_where_there_are_several() -> None:
    table = choice_table([{"architecture": PLAIN, "outline": []}, {"architecture": PYRAMID, "outline": [block()]}])
    assert table["input"] == [32, 224] and table["stages"] == [1, 2] and table["depth"] == [4, 1]
    assert table["1 mixer"] == ["softmax+window", "depthwise"] and table["1 depth"] == [4, 1]
    assert table["2 embed"] == [None, "patch_merging"] and table["2 width"] == [None, 64]
    assert table["1 exit"] == ["none", "early"] and table["kept"] == [1.0, 1.0]
    assert "2 mixer" not in table, "nobody has a mixer there"
    assert list(table)[:5] == ["input", "stages", "depth", "1 embed", "1 width"] and list(table)[-1] == "head"


def test_what_all_have_the_same_is_no_choice() -> None:
    table = choice_table([row(0, 1.0, 1.0), row(1, 1.0, 1.0)])
    assert set(varying(table)) == {"width"} and table["width"] == [32, 48]
    assert choice_table([]) == {}


def test_names_are_short() -> None:
    assert short("mlp(ratio=2.0)", "feedforward") == "mlp 2"
    assert short("gated(gate=silu, ratio=2.667)", "feedforward") == "gated 2.667"
    assert short("mlp(ratio=10)", "feedforward") == "mlp 10" and short("mlp", "feedforward") == "mlp"
    assert short("spatial_reduction(ratio=2)", "mixer") == "spatial_reduction"
    assert short("x(merge_ratio=3)", "feedforward") == "x" and short("") == "none"


def test_every_network_of_a_space_has_its_row() -> None:
    from nas.model.outline import outline
    from nas.model.spaces import load_named_space

    space = load_named_space("digits")
    drawn = [space.sample(random.Random(seed)) for seed in range(12)]
    table = choice_table([{"architecture": own.to_dict(), "outline": outline(own)} for own in drawn])
    assert table["depth"] == [len(own.blocks) for own in drawn]
    assert table["stages"] == [len(own.stages) for own in drawn]
    assert all(0 < share <= 1 for share in table["kept"])  # type: ignore[operator]
    for column in table.values():
        assert len(column) == 12 and all(value is None or isinstance(value, str | int | float) for value in column)


def known(rows: int, seed: int = 0) -> tuple[dict[str, list], list[float]]:
    """A figure with shares of 0.64 of a number, 0.16 of names joined, 0.2 of chance; two columns have nothing."""
    draw = np.random.default_rng(seed)
    width = draw.choice([32.0, 48.0, 64.0, 96.0], rows)
    mixers = [["softmax", "window", "softmax+window", "additive"][i] for i in draw.integers(4, size=rows)]
    stage = [None if i == 0 else int(i) for i in draw.integers(5, size=rows)]
    names = [f"n{i}" for i in draw.integers(30, size=rows)]
    has = np.array(["window" in text for text in mixers], dtype=float)

    def unit(values: np.ndarray) -> np.ndarray:
        return (values - values.mean()) / values.std()

    figure = 0.8 * unit(width) + 0.4 * unit(has) + np.sqrt(0.2) * draw.normal(size=rows)
    return {"names": names, "width": width.tolist(), "mixer": mixers, "stage": stage}, figure.tolist()


@pytest.mark.parametrize("rows", [200, 1000])
def test_the_shares_are_those_that_the_figure_was_made_of(rows: int) -> None:
    table, figure = known(rows)
    found = importance(table, figure)
    assert [name for name, _ in found[:2]] == ["width", "mixer"]
    shares = dict(found)
    assert shares["width"] == pytest.approx(0.64, abs=0.15) and shares["mixer"] == pytest.approx(0.16, abs=0.08)
    assert shares["names"] == 0 and shares["stage"] == 0
    assert importance(table, figure) == found, "nothing is left to chance"


@pytest.mark.parametrize("rows", [40, 200, 1000])
def test_chance_has_no_share(rows: int) -> None:
    table, _ = known(rows)
    noise = np.random.default_rng(7).normal(size=rows).tolist()
    assert [share for _, share in importance(table, noise)] == [0.0] * 4


def test_a_network_without_a_figure_says_nothing() -> None:
    table, figure = known(300)
    holes = [value if i % 3 else None for i, value in enumerate(figure)]
    kept = {name: [v for i, v in enumerate(column) if i % 3] for name, column in table.items()}
    assert importance(table, holes) == importance(kept, [value for value in holes if value is not None])


def test_too_little_to_say_anything() -> None:
    table, figure = known(10)
    assert importance(table, figure) == [("names", 0.0), ("width", 0.0), ("mixer", 0.0), ("stage", 0.0)]
    many, _ = known(50)
    assert {share for _, share in importance(many, [1.0] * 50)} == {0.0}
    assert importance({"head": ["mean"] * 50}, figure * 5) == [("head", 0.0)]
    assert importance({}, []) == []
    assert network()["head"] == "mean"
