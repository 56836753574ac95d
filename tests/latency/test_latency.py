"""Where latencies come from, and that their source is always told."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from nas.core.errors import InputError
from nas.core.space import Space
from nas.latency.device import this_device, versions
from nas.latency.latency import Latency
from nas.latency.profile import plan
from nas.latency.tables import file_name
from nas.model.plan import places_of
from nas.model.spaces import load_named_space
from tests.latency.imagined import OPERATORS, REFERENCE_MS, TARGET, empty, filled, true_whole


@pytest.fixture(scope="module")
def digits() -> Space:
    return load_named_space("digits")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this machine's tables are, and none else."""
    monkeypatch.setenv("NAS_TABLES", str(tmp_path))
    monkeypatch.setattr("nas.latency.tables.data_folder", lambda name: tmp_path / "shipped")
    return tmp_path


def test_this_devices_own_table(folder: Path, digits: Space) -> None:
    here = this_device(TARGET)
    table = filled(islice(plan(digits), 300), empty(here, versions(TARGET)))
    table.write(folder / file_name(TARGET, here))
    latency = Latency("cpu:eager")
    assert latency.measured and latency.present and latency.reference_ms == REFERENCE_MS
    assert here.name in latency.source and "median error" in latency.source and "estimated" not in latency.source
    architecture = digits.sample(Random(5))
    assert latency.predict(architecture).ms == pytest.approx(REFERENCE_MS * true_whole(architecture), rel=0.1)


def test_without_a_table_it_is_an_estimate_and_says_so(folder: Path, digits: Space) -> None:
    latency = Latency("cpu:eager")
    assert not latency.measured and latency.reference_ms is None
    assert "estimated, not measured" in latency.source
    assert any("estimated, not measured" in notice for notice in latency.notices)
    small, large = sorted((digits.sample(Random(n)) for n in range(2)), key=lambda a: latency.predict(a).ms)
    assert 0 < latency.predict(small).ms <= latency.predict(large).ms
    assert latency.predict(small).deviation_ms > 0.2 * latency.predict(small).ms


def test_a_gpu_that_is_not_here(folder: Path, digits: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.latency.target.gpu_count", lambda: 0)
    latency = Latency("gpu")
    assert not latency.present and not latency.measured and latency.target.kind == "gpu"
    assert any("no device gpu is here" in notice for notice in latency.notices)
    assert latency.predict(digits.sample(Random(0))).ms > 0
    with pytest.raises(InputError, match="not here, and there is no table of one"):
        Latency("cuda:0")


def test_a_shipped_table_of_another_device_of_that_kind(folder: Path, digits: Space) -> None:
    other = replace(this_device(TARGET), name="Another Processor", key="another-processor")
    table = filled(islice(plan(digits), 300), empty(other, versions(TARGET)))
    table.write(folder / "shipped" / file_name(TARGET, other))
    latency = Latency("cpu:eager")
    assert latency.measured and "Another Processor" in latency.source
    assert latency.reference_ms is None, "another device's milliseconds are not this one's"
    assert any("not on this machine" in notice for notice in latency.notices)


def test_a_table_of_another_torch_is_not_used_unless_allowed(folder: Path, digits: Space) -> None:
    here = this_device(TARGET)
    table = filled(islice(plan(digits), 300), empty(here, {"torch": "1.0.0"}))
    table.write(folder / file_name(TARGET, here))
    latency = Latency("cpu:eager")
    assert not latency.measured and any("another torch" in notice for notice in latency.notices)
    assert Latency("cpu:eager", frozenset({"torch"})).measured


def test_an_operator_that_the_table_has_not_seen(folder: Path, digits: Space) -> None:
    here = this_device(TARGET)
    works = (w for w in islice(plan(digits), 300) if w.place is None or w.place.spec.name != "separable")
    filled(works, empty(here, versions(TARGET))).write(folder / file_name(TARGET, here))
    latency = Latency("cpu:eager")
    chance = Random(0)
    drawn = (digits.sample(chance) for _ in range(200))
    architecture = next(a for a in drawn if any(p.spec.name == "separable" for p in places_of(OPERATORS, a)))
    assert latency.unseen(architecture) == ["mixer separable"]
    with pytest.raises(InputError, match="no row of this operator"):
        latency.predict(architecture)


@pytest.mark.parametrize("source", ["table", "data sheet"])
def test_a_prediction_is_the_sum_of_what_its_operators_add(folder: Path, digits: Space, source: str) -> None:
    if source == "table":
        here = this_device(TARGET)
        table = filled(islice(plan(digits), 300), empty(here, versions(TARGET)))
        table.write(folder / file_name(TARGET, here))
    latency = Latency("cpu:eager")
    assert latency.measured == (source == "table")
    random, checked = Random(3), 0
    while checked < 10:
        network = digits.sample(random)
        if not latency.unseen(network):
            checked += 1
            added = sum(latency.place_ms(place) for place in places_of(OPERATORS, network))
            assert latency.constant_ms + added == pytest.approx(latency.predict(network).ms, rel=1e-9)
