"""What the worker does within its process: failures by kind, what it keeps, and its limit of memory."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch

from nas.core.errors import InputError
from nas.latency import subject, worker
from nas.latency.runtimes import Unsupported
from nas.latency.subject import REFERENCE
from nas.latency.worker import Kept, answer

WITH_HEAD = {**REFERENCE, "classes": 10}


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (MemoryError(), {"failed": "out of memory", "why": "MemoryError:"}),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), {"failed": "out of memory"}),
        (RuntimeError("std::bad_alloc"), {"failed": "out of memory", "why": "RuntimeError: std::bad_alloc"}),
        (caused(Unsupported("export"), MemoryError("bad")), {"failed": "out of memory", "why": "MemoryError: bad"}),
        (Unsupported("no such\noperator"), {"failed": "unsupported", "why": "no such operator"}),
        (RuntimeError("shapes"), {"failed": "crashed", "why": "RuntimeError: shapes"}),
        (InputError("out of memory is a bad name", value="x"), {"input_error": "out of memory is a bad name: 'x'"}),
    ],
)
def test_failures_have_their_kind(monkeypatch: pytest.MonkeyPatch, error: Exception, reply: dict[str, str]):
    def fail(*_: object) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(worker, "measured", fail)
    found = answer(b'{"subject": {}, "target": {}}', Kept())
    assert found.items() >= reply.items(), found


@pytest.mark.parametrize("line", [b"", b"[]", b"{", b'{"subject": {}}', b"\xff"])
def test_a_line_that_is_no_request_is_bad_input(line: bytes):
    assert "a request is a JSON object" in answer(line, Kept())["input_error"]


def test_operators_of_one_network_are_made_once(monkeypatch: pytest.MonkeyPatch):
    built: list[int] = []
    real = subject.operators

    def counted(architecture: Any, batch: int, *rest: Any) -> Any:
        built.append(batch)
        return real(architecture, batch, *rest)

    monkeypatch.setattr(subject, "operators", counted)
    kept = Kept()
    for name in ("stages.0.embed", "head", "stages.0.embed"):
        kept.subject({"network": REFERENCE, "operator": name}, 1)
    assert built == [1]
    kept.subject({"network": REFERENCE, "operator": "head"}, 2)
    assert kept.subject({"network": WITH_HEAD, "operator": "head"}, 2).module is not None
    assert built == [1, 2, 2]


def test_an_operator_is_the_same_however_it_was_asked_for():
    torch.manual_seed(7)
    description = {"network": WITH_HEAD, "operator": "head"}
    kept, alone = Kept().subject(description, 1), subject.subject(description, 1)
    with torch.no_grad():
        assert all(map(torch.equal, kept.module(*kept.inputs), alone.module(*alone.inputs)))


def test_what_a_runtime_does_to_a_module_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    from nas.latency.runtimes import eager

    real = eager.load

    def rewriting(module: Any, *rest: Any) -> Any:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
        return real(module, *rest)

    kept = Kept()
    monkeypatch.setattr(eager, "load", rewriting)
    description = {"network": WITH_HEAD, "operator": "head"}
    line = {"subject": description, "target": {}, "limits": {"seconds": 0.05, "min_pairs": 1, "max_pairs": 1}}
    assert answer(json.dumps(line).encode(), kept)["outputs"][0]["rms"] == 0
    assert any(parameter.any() for parameter in kept.subject(description, 1).module.parameters())


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory holds on Linux")
def test_the_limit_of_memory_ends_with_the_request():
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(RuntimeError, match="allocate memory"), worker._limited(50):
        torch.ones(25_000_000)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with worker._limited(None):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_outputs_are_described_whatever_a_runtime_returns():
    import numpy

    value = {"a": (torch.full((2, 3), 2.0), numpy.zeros(4, numpy.float32)), "b": [torch.tensor([1.0, float("nan")])]}
    assert [worker._description(output) for output in worker._arrays(value)] == [
        {"shape": [2, 3], "finite": True, "rms": 2.0},
        {"shape": [4], "finite": True, "rms": 0.0},
        {"shape": [2], "finite": False, "rms": None},
    ]
