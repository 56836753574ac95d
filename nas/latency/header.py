"""Header: what a table says of itself once: device, target, versions, the reference, the ceilings, the command."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nas.core.errors import InputError, nearest
from nas.latency.device import Device
from nas.latency.row import date_text, number_text, one_line, read_count, read_number, rounded, whole
from nas.latency.target import Target

NO_REFERENCE = "none"  # times that another tool gave in milliseconds: a ratio is a number of milliseconds
_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_RUNTIME = re.compile(r"[a-z][a-z0-9_]{0,49}")
_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,50}")
_PLACE = re.compile(r"cpu|cuda:\d{1,3}")
_VERSION = re.compile(r"([A-Za-z0-9_.-]{1,50}) ([A-Za-z0-9_.+!-]{1,50})")
_TARGET = ("runtime", "precision", "threads", "batch", "channels_last", "graph")


@dataclass(frozen=True)
class Header:
    """The provenance of a table.

    device               whose table it is; without cores and memory (0) where they are not known
    target               kind of device, runtime, precision, threads, batch, memory format, graph
    versions             of the packages that decide: torch and the runtime's own; (name, version), in order
    reference            the network that ratios refer to, its name and digest; `none` for imported milliseconds
    reference_ms         its own median latency on this device, of reference_pairs calls; 1 without a reference
    macs_per_second, bytes_per_second   the device's measured ceilings, where known
    created, command     when and by what command the table was begun
    """

    device: Device
    target: Target
    versions: tuple[tuple[str, str], ...]
    reference: str
    reference_ms: float
    reference_pairs: int
    created: str
    macs_per_second: float | None = None
    bytes_per_second: float | None = None
    command: str = ""

    def __post_init__(self) -> None:
        _check_device(self.device)
        _check_target(self.target, self.device.kind)
        if list(dict(self.versions)) != sorted(name for name, _ in self.versions):
            raise InputError("versions are in order and name each package once", value=self.versions)
        for name, version in self.versions:
            if not _VERSION.fullmatch(f"{name} {version}"):
                raise InputError("a version is a package's name and its version", value=f"{name} {version}")
        if not one_line(self.reference, "reference", 200):
            raise InputError("a table names its reference")
        if self.reference == NO_REFERENCE and self.reference_ms != 1:
            raise InputError("without a reference its time is 1 ms", value=self.reference_ms)
        whole(self.reference_pairs)
        for name in ("reference_ms", "macs_per_second", "bytes_per_second"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, rounded(getattr(self, name)))
        date_text(self.created)
        one_line(self.command, "command", 10_000)

    @property
    def kind(self) -> str:
        """cpu or gpu."""
        return self.target.kind

    def lines(self) -> list[tuple[str, str]]:
        """Keys and values as they are written."""
        device = self.device
        return [
            ("device", device.name),
            ("key", device.key),
            ("kind", device.kind),
            ("cores", str(device.cores)),
            ("instructions", " ".join(device.instructions)),
            ("memory_bytes", str(device.memory_bytes)),
            ("driver", device.driver),
            ("power_limit_watts", number_text(device.power_limit_watts)),
            ("where", self.target.device),
            *((name, _word(getattr(self.target, name))) for name in _TARGET),
            ("versions", ", ".join(f"{name} {version}" for name, version in self.versions)),
            ("reference", self.reference),
            ("reference_ms", number_text(self.reference_ms)),
            ("reference_pairs", str(self.reference_pairs)),
            ("macs_per_second", number_text(self.macs_per_second)),
            ("bytes_per_second", number_text(self.bytes_per_second)),
            ("created", self.created),
            ("command", self.command),
        ]

    def differences(self, target: Target, device_key: str, versions: Mapping[str, str]) -> dict[str, str]:
        """Where this table is not of this target, device and packages: name to `cpu-a, not cpu-b`.

        Versions are compared by major and minor number, of the packages that both sides have.
        """
        pairs = {"device": (self.device.key, device_key), "kind": (self.kind, target.kind)}
        pairs |= {name: (_word(getattr(self.target, name)), _word(getattr(target, name))) for name in _TARGET}
        pairs |= {name: (_minor(held), _minor(versions[name])) for name, held in self.versions if name in versions}
        return {name: f"{held}, not {asked}" for name, (held, asked) in pairs.items() if held != asked}

    def check(
        self,
        target: Target,
        device_key: str,
        versions: Mapping[str, str],
        allow: Collection[str] = frozenset(),
        place: str = "",
    ) -> None:
        """InputError that names each difference; those in `allow` (`device`, `batch`, `torch`) are let pass."""
        check_allowed(allow, dict(self.versions))
        found = self.differences(target, device_key, versions)
        refused = {name: text for name, text in found.items() if name not in allow}
        if refused:
            told = "; ".join(f"{name} {text}" for name, text in refused.items())
            flag = f"--allow-mismatch {','.join(refused)}"
            raise InputError(f"the table is of another {', '.join(refused)} ({told}); to use it, {flag}", place=place)


def check_allowed(allow: Collection[str], versions: Collection[str]) -> None:
    """InputError for a name that is nothing in which a table can differ."""
    known = {"device", "kind", *_TARGET, "torch", *versions}
    for name in allow:
        if name not in known:
            raise InputError("no such mismatch to allow", value=name, nearest=nearest(name, known))


def read_header(values: Mapping[str, str]) -> Header:
    """The header of the keys and values of a file."""
    optional = ("power_limit_watts", "macs_per_second", "bytes_per_second")
    watts, macs, copied = (read_number(values[name]) if values[name] else None for name in optional)
    device = Device(
        kind=values["kind"],
        name=values["device"],
        key=values["key"],
        cores=read_count(values["cores"]),
        instructions=tuple(values["instructions"].split()),
        memory_bytes=read_count(values["memory_bytes"]),
        driver=values["driver"],
        power_limit_watts=watts,
    )
    target = Target(
        device=values["where"],
        runtime=values["runtime"],
        precision=values["precision"],
        threads=read_count(values["threads"]),
        batch=read_count(values["batch"]),
        channels_last=_truth(values["channels_last"]),
        graph=_truth(values["graph"]),
    )
    return Header(
        device,
        target,
        _read_versions(values["versions"]),
        values["reference"],
        read_number(values["reference_ms"]),
        read_count(values["reference_pairs"]),
        values["created"],
        macs,
        copied,
        values["command"],
    )


def same_reference(one: Header, two: Header) -> Header:
    """The header of two joined tables: that of the one, begun when the earlier was; InputError where they differ."""
    found = one.differences(two.target, two.device.key, dict(two.versions))
    if one.reference != two.reference:
        found["reference"] = f"{one.reference}, not {two.reference}"
    if found:
        told = "; ".join(f"{name} {text}" for name, text in found.items())
        raise InputError(f"tables to join are of the same device and target ({told})")
    return replace(one, created=min(one.created, two.created))


def _check_device(device: Device) -> None:
    if not one_line(device.name, "device's name", 200):
        raise InputError("a table names its device")
    if not _KEY.fullmatch(device.key):
        raise InputError("a device's key is of a-z 0-9 . _ -", value=device.key)
    for word in device.instructions:
        if not _WORD.fullmatch(word):
            raise InputError("an instruction set is a word", value=word)
    one_line(device.driver, "driver", 200)
    whole(device.cores)
    whole(device.memory_bytes)
    if device.power_limit_watts is not None and rounded(device.power_limit_watts) != device.power_limit_watts:
        raise InputError("the power limit has at most five digits", value=device.power_limit_watts)


def _check_target(target: Target, kind: str) -> None:
    if not _PLACE.fullmatch(target.device) or target.kind != kind:
        raise InputError("a target is on cpu or on cuda:0, as its device's kind is", value=f"{target.device} on {kind}")
    for name, word in (("runtime", target.runtime), ("precision", target.precision)):
        if not _RUNTIME.fullmatch(word):
            raise InputError(f"a {name} is a lowercase word", value=word)
    if target.batch < 1:
        raise InputError("a batch has 1 image or more", value=target.batch)
    if (target.threads < 1) is (kind == "cpu"):
        raise InputError("a processor has 1 thread or more, a GPU none", value=target.threads)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise InputError("true or false is expected", value=text)
    return text == "true"


def _minor(version: str) -> str:
    return ".".join(version.split("+")[0].split(".")[:2])


def _read_versions(text: str) -> tuple[tuple[str, str], ...]:
    found = []
    for part in text.split(", ") if text else []:
        match = _VERSION.fullmatch(part)
        if match is None:
            raise InputError("versions are written `torch 2.15.0, openvino 2026.4`", value=text)
        found.append((match[1], match[2]))
    return tuple(found)
