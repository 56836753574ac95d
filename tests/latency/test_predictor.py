"""Operators' times and the predictor, on tables whose times are formulas: what was put in must come out."""

import math
from itertools import islice
from random import Random
from types import MappingProxyType

import pytest

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.latency.clock import Reading
from nas.latency.measuring import Measurement
from nas.latency.operator_times import OperatorTimes, Sample, context_of
from nas.latency.predictor import MIN_NETWORKS, Predictor, samples
from nas.latency.profile import Work, plan
from nas.latency.table import Table
from nas.model.plan import Place, places_of
from nas.model.spaces import load_named_space
from tests.latency.imagined import OPERATORS, REFERENCE_MS, filled, true_whole


@pytest.fixture(scope="module")
def digits() -> Space:
    return load_named_space("digits")


@pytest.fixture(scope="module")
def table(digits: Space) -> Table:
    return filled(islice(plan(digits), 250))


@pytest.fixture(scope="module")
def predictor(table: Table) -> Predictor:
    return Predictor(table)


def unseen_networks(space: Space, table: Table, count: int) -> list[Architecture]:
    chance, known = Random(77), {row.spec for row in table.networks()}
    drawn = (space.sample(chance) for _ in range(10 * count))
    return [architecture for architecture in drawn if architecture.digest not in known][:count]


def test_networks_that_were_never_measured(digits: Space, table: Table, predictor: Predictor) -> None:
    for architecture in unseen_networks(digits, table, 40):
        ms, deviation_ms = predictor.predict(architecture)
        assert ms == pytest.approx(REFERENCE_MS * true_whole(architecture), rel=0.05)
        assert 0 < deviation_ms < 0.2 * ms


def test_the_predictor_says_its_own_error(predictor: Predictor, table: Table) -> None:
    error = predictor.error
    assert error.networks == len(table.networks()) >= MIN_NETWORKS
    assert error.median < 0.03 and error.within_10 > 0.95 and error.median <= error.worst


def test_its_own_error_is_that_of_networks_left_out(digits: Space, table: Table) -> None:
    """Refitted without a network, the prediction of it is about the one that counts in the error."""
    whole = Predictor(table)
    row = table.networks()[3]
    without = Table(table.header, MappingProxyType({key: other for key, other in table.rows.items() if other != row}))
    architecture = Space.parse(row.document, digits.rules, "row").only()
    left_out = Predictor(without).predict(architecture).ms / REFERENCE_MS / row.ratio - 1
    assert whole._fit.left_out[3] == pytest.approx(left_out, abs=0.01)


def test_the_correction_matters(digits: Space, table: Table, predictor: Predictor) -> None:
    """The plain sum misses what only whole networks show."""
    architecture = unseen_networks(digits, table, 1)[0]
    true_ms = REFERENCE_MS * true_whole(architecture)
    error = abs(predictor.predict(architecture).ms / true_ms - 1)
    assert error < 0.5 * abs(predictor.operator_sum_ms(architecture) / true_ms - 1)


def test_an_operator_that_was_never_measured_is_refused(digits: Space, table: Table) -> None:
    name = "mixer", "path_mask"
    kept = {key: row for key, row in table.rows.items() if (row.kind, row.spec.split("(")[0]) != name}
    poorer = Predictor(Table(table.header, MappingProxyType(kept)))
    refused = allowed = 0
    for architecture in unseen_networks(digits, table, 40):
        has = any((place.kind, place.spec.name) == name for place in places_of(OPERATORS, architecture))
        assert poorer.unseen(architecture) == (["mixer path_mask"] if has else [])
        if has:
            refused += 1
            with pytest.raises(InputError, match=r"no row of this operator.*path_mask"):
                poorer.predict(architecture)
        else:
            allowed += 1
            assert poorer.predict(architecture).ms > 0
    assert refused and allowed


def test_a_table_with_too_few_networks_is_refused(table: Table) -> None:
    kept = {key: row for key, row in table.rows.items() if row not in table.networks()[MIN_NETWORKS - 1 :]}
    with pytest.raises(InputError, match=f"needs {MIN_NETWORKS} measured networks"):
        Predictor(Table(table.header, MappingProxyType(kept)))


def test_rows_that_failed_do_not_count(table: Table, predictor: Predictor, digits: Space) -> None:
    architecture = unseen_networks(digits, table, 1)[0]
    bad = Work(architecture).row(Measurement({"failed": "out of memory", "why": "2 GB"}))
    again = Predictor(table.with_row(bad))
    assert again.error.networks == predictor.error.networks
    assert again.predict(architecture) == predictor.predict(architecture)


def test_an_uncertain_network_counts_less(digits: Space, table: Table) -> None:
    """A wild network with a wide interval moves predictions less than the same with a narrow one."""
    row = table.networks()[0]
    assert row.ratio is not None
    wrong = 3 * row.ratio
    document = row.document
    architecture = Space.parse(document, digits.rules, "row").only()
    moved = []
    for width in (0.001, 0.8):
        reading = Reading(wrong, wrong * (1 - width), wrong * (1 + width), width, wrong, 1.0, 20, 1.0, True, 0, 0, 0)
        changed = Work(architecture).row(Measurement({"reading": reading.to_dict()}))
        moved.append(Predictor(table.with_row(changed)).predict(architecture).ms / REFERENCE_MS / row.ratio)
    assert moved[0] > moved[1] and moved[1] < 1.3


# Operators' times -----------------------------------------------------------------------------------------------------


def test_times_between_rows_are_inferred(table: Table) -> None:
    known = list(samples(table, OPERATORS))
    for name in {(sample.kind, sample.spec.name) for sample in known}:
        of_name = [sample for sample in known if (sample.kind, sample.spec.name) == name]
        if len(of_name) < 6:
            continue
        left, *rest = sorted(of_name, key=lambda sample: abs(math.log(sample.cost.macs + 1) - 14))
        place = Place("there", left.kind, left.spec, left.site, {})
        time = OperatorTimes(rest).at(place, left.cost)
        assert time.ratio == pytest.approx(left.ratio, rel=0.25), name
        assert time.deviation > 0


def test_a_measured_row_is_answered_nearly_as_measured(table: Table) -> None:
    times = OperatorTimes(samples(table, OPERATORS))
    for sample, row in zip(samples(table, OPERATORS), table.operators(), strict=True):
        place = Place("there", sample.kind, sample.spec, sample.site, dict(row.context))
        assert times.at(place, sample.cost).ratio == pytest.approx(sample.ratio, rel=0.1)


def test_far_from_all_rows_is_less_sure(table: Table) -> None:
    known = [s for s in samples(table, OPERATORS) if (s.kind, s.spec.name) == ("mixer", "softmax")]
    noisy = [s._replace(ratio=s.ratio * Random(n).uniform(0.8, 1.25)) for n, s in enumerate(known)]
    times = OperatorTimes(noisy)
    near = Place("near", "mixer", known[0].spec, known[0].site, {})
    site = known[0].site._replace(dim=1024, height=64, width=64, tokens=4096)
    cls = OPERATORS.get("mixer", "softmax")
    far = Place("far", "mixer", known[0].spec, site, {})
    cost = cls.cost(site, **dict(known[0].spec.knobs))
    assert times.at(far, cost).deviation > times.at(near, known[0].cost).deviation


def test_left_out_errors_are_small_where_times_follow_a_formula(table: Table) -> None:
    errors = OperatorTimes(samples(table, OPERATORS)).left_out_errors()
    known = sorted(abs(error) for some in errors.values() if len(some) > 3 for error in some)
    assert known[len(known) // 2] < 0.05


def test_one_row_is_enough_for_an_operator(digits: Space) -> None:
    place = next(places_of(OPERATORS, digits.sample(Random(0))))
    cost = place.cost(OPERATORS)
    times = OperatorTimes([Sample(place.kind, place.spec, place.site, context_of(place), cost, 0.5, 0.01)])
    assert times.at(place, cost).ratio == pytest.approx(0.5, rel=0.05)
    assert (place.kind, place.spec.name) in times
