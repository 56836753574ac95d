"""Latency of networks on a target, from the best source there is, and always with its name.

This device's own table, else a table of another device of that kind, else a roofline of a data sheet. Predictions of a
table carry their uncertainty; what comes from a data sheet is "estimated, not measured" wherever it shows.
"""

from __future__ import annotations

from collections.abc import Collection

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.latency import roofline
from nas.latency.device import this_device, versions
from nas.latency.predictor import MIN_NETWORKS, Prediction, Predictor
from nas.latency.tables import ESTIMATED, choose, left_open
from nas.latency.target import Target, resolve
from nas.model.plan import Place
from nas.ops.catalogue import catalogue

ROOFLINE_DEVIATION = 0.5  # relative; a data sheet is good for an order of networks, hardly for their times


class Latency:
    """What a target's latencies are taken from.

    target     with everything filled in; a table of a device that is not here says its own
    present    whether the device is in this machine, so that networks can be measured on it
    measured   whether predictions rest on measurements (of any device of the kind)
    source     in words; notices are further things to tell
    """

    def __init__(self, text: str, allow: Collection[str] = frozenset()):
        resolved = resolve(text)
        self.target: Target = resolved.target
        self.present = resolved.present
        device = this_device(self.target) if self.present else None
        choice = choose(self.target, device, versions(self.target), allow, left_open(resolved.request))
        self.table, self._own = choice.table, choice.own
        self._predictor: Predictor | None = None
        self._sheet = roofline.default_sheet(self.target.kind)
        notices = [*resolved.notices, *([choice.notice] if choice.notice else [])]
        if self.table is not None and len(self.table.networks()) >= MIN_NETWORKS:
            if not choice.own:
                self.target = self.table.header.target
            self._predictor = Predictor(self.table)
            error = self._predictor.error
            self.source = (
                f"table {choice.path.name if choice.path else ''} of {self.table.header.device.name}, "
                f"median error {error.median:.1%} on {error.networks} networks left out in turn"
            )
        elif not self.present and resolved.request.device != "gpu":
            rule = "this device is not here, and there is no table of one (the target gpu takes an estimate then)"
            raise InputError(rule, value=resolved.request.device)
        else:
            self.source = f"{ESTIMATED} (roofline of the data sheet of {roofline.sheet(self._sheet).name})"
        self.notices = tuple(notices)

    @property
    def measured(self) -> bool:
        return self._predictor is not None

    def predict(self, architecture: Architecture) -> Prediction:
        """InputError if the table has never seen an operator of this network."""
        if self._predictor is not None:
            return self._predictor.predict(architecture)
        ms = roofline.estimate(architecture, self._sheet, self.target).ms
        return Prediction(ms, ROOFLINE_DEVIATION * ms)

    @property
    def constant_ms(self) -> float:
        """The part of every prediction that belongs to no operator; the others' parts are `place_ms`."""
        return 0.0 if self._predictor is None else self._predictor.constant_ms

    def place_ms(self, place: Place) -> float:
        """What an operator adds to a prediction; InputError if the table has never seen it."""
        if self._predictor is not None:
            return self._predictor.place_ms(place)
        return roofline.operator_ms(place.cost(catalogue()), roofline.sheet(self._sheet), self.target)[0]

    def unseen(self, architecture: Architecture) -> list[str]:
        """Operators of this network that the source knows nothing of."""
        return [] if self._predictor is None else self._predictor.unseen(architecture)

    @property
    def reference_ms(self) -> float | None:
        """The reference's own figure, where this device has a table."""
        return self.table.header.reference_ms if self.table is not None and self._own else None
