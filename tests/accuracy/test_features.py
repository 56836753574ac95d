"""Published networks, and the features of networks."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import numpy as np
import pytest

from nas.accuracy.features import KIND, SIZE, Features
from nas.accuracy.prior import features
from nas.accuracy.published import published, read_published
from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.costs import Costs
from nas.model.plan import places_of
from nas.model.reference import agrees, load_reference, reference_names
from nas.model.spaces import load_named_space, shared_rules
from nas.ops.catalogue import Catalogue, catalogue
from nas.ops.rules import OperatorRules

MIXER = '''"""A mixer of a user's own."""
from nas.core.cost import linear
from nas.ops.base import Mixer


class Mine(Mixer):
    @classmethod
    def cost(cls, site):
        return linear(site.rows, site.dim, site.dim)
'''


def reference(name: str) -> Architecture:
    return load_reference(name).architecture


# Published networks


def test_sizes_of_published_networks_have_the_parameters_that_were_published() -> None:
    costs, checked = Costs(), 0
    for one in published():
        if one.params_m is not None and one.name not in reference_names():
            assert agrees(costs.cost(one.architecture).params, one.params_m, 1e6), one.name
            checked += 1
    assert checked >= 40


def test_published_networks_are_legal_canonical_and_each_there_once() -> None:
    for one in published():
        assert Space.parse(one.architecture.to_dict(), shared_rules(), one.name).only() == one.architecture
        assert 0 < one.top1 < 100 and one.source
    names = [one.name for one in published()]
    assert len(set(names)) == len(names) >= 100
    assert {name for name in reference_names() if load_reference(name).top1 is not None} <= set(names)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{of: swin_tinny, top1: 80, source: x}", "swin_tiny"),
        ("{of: swin_tiny, top1: 80}", "source"),
        ("{of: swin_tiny, source: x}", "top1"),
        ("{of: swin_tiny, top1: 80, source: x, size: 3}", "size"),
        ("{of: swin_tiny, top1: 80, source: x, dims: [96]}", "one value a stage, 4"),
        ("{of: swin_tiny, top1: 80, source: x, depths: [2, 2, 6, 2]}", "unlike blocks"),
        ("{of: swin_tiny, top1: 80, source: x, depths: [null, null, [[0, 6, 1]], null]}", "range of the 6 blocks"),
        ("{of: swin_tiny, top1: 80, source: x, knobs: {mixer.topk: 4}}", "mixer.topk"),
        ("{of: swin_tiny, top1: 80, source: x, knobs: {mixer.heads: [1, 2]}}", "one a stage, 4"),
        ("{of: swin_tiny, top1: 80, source: x, knobs: {mixer.heads: many}}", "heads"),
        ("{of: swin_tiny, top1: 80, source: x, recipe: [lucky]}", "distilled"),
        ("{family: mine}", "a reference network with top-1"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_place(tmp_path: Path, entry: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"networks:\n  mine: {entry}\n")
    with pytest.raises(InputError) as caught:
        read_published(path)
    assert message in str(caught.value) and "mine.yaml: networks.mine" in str(caught.value)


def test_a_file_without_the_key_networks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("network: {}\n")
    with pytest.raises(InputError, match="the one key networks"):
        read_published(path)


# Features


def named(architecture: Architecture, of: Features | None = None) -> dict[str, float]:
    of = of or features()
    return dict(zip(of.names, of.of(architecture).tolist(), strict=True))


def test_features_of_networks_worked_out_by_hand() -> None:
    deit = named(reference("deit_small"))
    assert deit["log_params"] == pytest.approx(math.log(22_050_664))
    assert deit["log_depth"] == pytest.approx(math.log(12)) and deit["log_width"] == pytest.approx(math.log(384))
    assert deit["log_tokens"] == pytest.approx(math.log(196)) and deit["log_input"] == pytest.approx(math.log(224))
    assert deit["global"] == 1 and deit["class_token"] == 1 and deit["pyramid"] == 0 and deit["log_spared"] == 0
    assert deit["mixer:softmax"] == pytest.approx(1) and deit["head:class_token"] == 1
    assert deit["attention_share"] == pytest.approx(12 * 2 * 197**2 * 384 / Costs().cost(reference("deit_small")).macs)
    swin = named(reference("swin_tiny"))
    reach = (2 * 49 / 3136 + 2 * 49 / 784 + 6 * 49 / 196 + 2) / 12  # stages of 56, 28, 14, 7; windows of 7 x 7
    assert swin["global"] == pytest.approx(reach, abs=1e-6) and swin["local"] == pytest.approx(1 - reach, abs=1e-6)
    assert swin["pyramid"] == 3 and swin["class_token"] == 0
    assert named(reference("gfnet_xs"))["spectral"] == pytest.approx(1)
    assert named(reference("convnext_tiny"))["static"] == pytest.approx(1)
    swift = named(reference("swiftformer_s"))  # 4 of 25 blocks have additive attention, the others none
    assert swift["linear"] == pytest.approx(4 / 25) and swift["unmixed"] == pytest.approx(21 / 25)


def test_dropping_tokens_spares_macs_and_leaves_the_size_as_it_was() -> None:
    whole, reduced = named(reference("deit_small")), named(reference("evit_deit_small_k5"))
    assert reduced["log_whole_macs"] == pytest.approx(whole["log_whole_macs"], abs=0.03)
    assert reduced["log_spared"] == pytest.approx(math.log(2.309 / 4.599), abs=0.03)  # the authors' code, counted
    assert reduced["last_kept"] == pytest.approx(27 / 196)  # 196 -> 98 + 1 -> 50 + 1 -> 26 + 1


@pytest.mark.parametrize("space", ["digits", "tiny", None])
def test_costs_and_shares_are_those_of_the_plan(space: str | None) -> None:
    if space is None:
        networks = [one.architecture for one in published()]
    else:
        random, of = Random(0), load_named_space(space)
        networks = [of.sample(random) for _ in range(60)]
    costs, operators = Costs(), catalogue()
    described = features().describe(networks)
    for network, row, cost in zip(networks, described.rows, described.costs, strict=True):
        assert cost == costs.cost(network)
        found = dict(zip(features().names, row.tolist(), strict=True))
        by_kind = dict.fromkeys(("mixer", "feedforward", "embed"), 0)
        for place in places_of(operators, network):
            if place.kind in by_kind:
                by_kind[place.kind] += place.cost(operators).macs
        assert found["mixer_share"] == pytest.approx(by_kind["mixer"] / cost.macs)
        assert found["feedforward_share"] == pytest.approx(by_kind["feedforward"] / cost.macs)
        assert found["embed_share"] == pytest.approx(by_kind["embed"] / cost.macs)
        mixing = sum(found[name] for name in ("global", "local", "static", "spectral", "linear", "unmixed"))
        assert mixing == pytest.approx(1) and np.isfinite(row).all()


def test_a_new_operator_file_gets_its_columns(tmp_path: Path) -> None:
    (tmp_path / "mixers").mkdir()
    (tmp_path / "mixers" / "mine.py").write_text(MIXER)
    operators = Catalogue([tmp_path])
    document = {**reference("deit_tiny").to_dict()}
    document["stages"][0]["blocks"] = [{"repeat": 12, "mixer": "mine", "feedforward": "mlp(ratio=4)"}]
    network = Space.parse(document, OperatorRules(operators), "test").only()
    found = named(network, Features(operators))
    assert found["mixer:mine"] == pytest.approx(1) and found["linear"] == pytest.approx(1)


def test_columns_come_in_the_groups_that_the_regression_takes() -> None:
    names = features().names
    size, kind, operators = (names[columns] for columns in features().groups)
    assert (size, kind) == (SIZE, KIND) and all(":" in name for name in operators)
    assert len(set(names)) == len(names) and "mixer:softmax" in operators
