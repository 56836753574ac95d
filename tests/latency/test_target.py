"""Targets: what parses, what does not and why, and what is filled in."""

import re
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nas.core.errors import InputError
from nas.latency import target as targets
from nas.latency.runtimes import runtimes
from nas.latency.target import Request, Target, exact_target, parse_target, resolve

FAKES = {
    "eager": SimpleNamespace(KINDS={"cpu", "gpu"}, PRECISIONS=("fp32", "bf16", "fp16"), PACKAGES=(), deployment=0),
    "slow": SimpleNamespace(KINDS={"cpu", "gpu"}, PRECISIONS=("fp32",), PACKAGES=("slow_one",), deployment=1),
    "compile": SimpleNamespace(KINDS={"cpu", "gpu"}, PRECISIONS=("fp32", "bf16"), PACKAGES=("torch",), deployment=0),
    "quick": SimpleNamespace(KINDS={"cpu"}, PRECISIONS=("bf16", "fp32"), PACKAGES=("quick_one", "two"), deployment=2),
}


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Four runtimes in place of the real ones; the names in the set that is returned are not installed."""
    absent: set[str] = set()
    monkeypatch.setattr(targets, "runtimes", lambda: FAKES)
    monkeypatch.setattr(targets, "runtime", FAKES.__getitem__)
    monkeypatch.setattr(targets, "missing", lambda name: FAKES[name].PACKAGES if name in absent else ())
    monkeypatch.setattr(targets, "gpu_count", lambda: 1)
    return absent


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cpu", Request("cpu")),
        ("gpu", Request("gpu")),
        ("cuda", Request("cuda:0")),
        ("cuda:1", Request("cuda:1")),
        ("cuda:01:eager", Request("cuda:1", "eager")),
        (" CPU : Eager ", Request("cpu", "eager")),
        ("cpu:threads=1", Request("cpu", threads=1)),
        ("cpu,batch=16,eager", Request("cpu", "eager", batch=16)),
        ("cpu:eager,threads=2,channels_last", Request("cpu", "eager", threads=2, channels_last=True)),
        ("cpu:eager:threads=1,batch=16,precision=bf16", Request("cpu", "eager", "bf16", 1, 16)),
        (" cuda:2 , graph ", Request("cuda:2", graph=True)),
        ("cuda:0:graph,precision=fp16", Request("cuda:0", precision="fp16", graph=True)),
    ],
)
def test_a_request_is_read(text: str, expected: Request):
    assert parse_target(text) == expected
    assert parse_target(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown device: ''"),
        ("cpus", "unknown device: 'cpus' (nearest: cpu"),
        ("cuda1", "unknown device: 'cuda1' (nearest: cuda:0"),
        ("egpu:eager", "unknown device: 'egpu' (nearest: gpu"),
        ("cpu:eagre", "is a runtime, channels_last or graph: 'eagre' (nearest: eager"),
        ("cpu:", "is a runtime, channels_last or graph: ''"),
        ("cpu:eager::threads=1", "is a runtime, channels_last or graph: ''"),
        ("gpu:1", "is a runtime, channels_last or graph: '1' (nearest: cuda:1"),
        ("cuda:1000", "is a runtime, channels_last or graph: '1000'"),
        ("cpu:bf16", "'bf16' (nearest: precision=bf16)"),
        ("cpu:_torch", "is a runtime, channels_last or graph: '_torch'"),
        ("cpu:threds=2", "unknown key of a target: 'threds' (nearest: threads"),
        ("cpu:device=cpu", "unknown key of a target: 'device'"),
        ("cpu:channels_last=1", "channels_last is written alone, without a value"),
        ("cpu:precision=fp8", "unknown precision: 'fp8' (nearest: fp"),
        ("cpu:threads=0", "threads is a whole number from 1 to 1024: '0'"),
        ("cpu:threads=1025", "threads is a whole number from 1 to 1024: '1025'"),
        ("cpu:threads=1.5", "threads is a whole number"),
        ("cpu:threads=\u0661", "threads is a whole number"),
        ("cpu:batch=4097", "batch is a whole number from 1 to 4096: '4097'"),
        ("cpu:batch=-1", "batch is a whole number"),
        ("cpu:batch=", "batch is a whole number"),
        ("cpu:batch=1,batch=1", "a target says its batch once"),
        ("cpu:eager:eager", "a target says its runtime once"),
        ("cuda:0:graph,graph", "a target says its graph once"),
        ("gpu:threads=2", "threads are of a cpu"),
        ("cpu:graph", "graph (CUDA graphs) is of a gpu"),
        ("cpu:" + "x" * 200, "at most 200 characters"),
    ],
)
def test_a_bad_request_is_refused(text: str, message: str):
    with pytest.raises(InputError, match=re.escape(message)):
        parse_target(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu:quick", "the runtime does not run on a gpu: 'quick' (nearest: "),
        ("cpu:slow:precision=bf16", "slow does not offer the precision: 'bf16' (nearest: fp32)"),
    ],
)
def test_a_runtime_that_cannot_is_refused(fakes: set[str], text: str, message: str):
    with pytest.raises(InputError, match=re.escape(message)):
        parse_target(text)


WORDS = ["cpu", "gpu", "cuda", "cuda:0", "cuda:07", *runtimes(), "channels_last", "graph", "threads=1", "threads=99999"]
WORDS += ["batch=16", "batch=0", "precision=bf16", "precision=fp16", "precision=", "=", "", " ", "0", "threads", "ı"]
LIKELY = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from([":", ",", ""])), max_size=6).map(
    lambda parts: "".join(word + separator for word, separator in parts)
)


@given(st.text(max_size=250) | LIKELY)
@example("cpu:eager:precision=fp32,batch=1,threads=1,channels_last")
@example("cuda:12:graph")
def test_any_text_is_a_request_or_an_input_error(text: str):
    try:
        request = parse_target(text)
    except InputError:
        return
    assert parse_target(str(request)) == request
    if None in (request.runtime, request.precision, request.batch) or request.device == "gpu":
        with pytest.raises(InputError, match="exact target"):
            exact_target(text)
    elif request.kind == "gpu" or request.threads is not None:
        made = exact_target(text)
        assert exact_target(str(made)) == made
        assert parse_target(str(made)) == request


@pytest.mark.parametrize(
    ("text", "filled", "notice"),
    [
        ("cpu", Target("cpu", "quick", "bf16", 1, 1), "runtime: quick, the fastest deployment runtime installed here"),
        ("cpu:precision=fp32", Target("cpu", "quick", "fp32"), "runtime: quick"),
        ("cpu:precision=fp16", Target("cpu", "eager", "fp16"), "runtime: eager, since no deployment runtime"),
        ("cpu:slow,batch=4,channels_last", Target("cpu", "slow", "fp32", 1, 4, True), ""),
        ("gpu", Target("cuda:0", "compile", "fp32", 0), "runtime: compile, the default of a gpu"),
        ("gpu:precision=fp16", Target("cuda:0", "eager", "fp16", 0), "runtime: eager"),
        ("cuda:0:eager,graph", Target("cuda:0", "eager", "fp32", 0, 1, False, True), ""),
    ],
)
def test_what_was_not_said_is_filled_in_and_told(fakes: set[str], text: str, filled: Target, notice: str):
    resolved = resolve(text)
    assert (resolved.target, resolved.present) == (filled, True)
    assert exact_target(str(filled)) == filled
    assert notice in "; ".join(resolved.notices)
    assert bool(resolved.notices) == bool(notice)


def test_a_precision_other_than_fp32_that_was_not_asked_for_is_told(fakes: set[str]):
    assert any("precision: bf16, the default of quick" in notice for notice in resolve("cpu").notices)
    assert not any("precision" in notice for notice in resolve("cpu:precision=bf16").notices)


def test_the_next_runtime_is_taken_and_the_faster_one_named(fakes: set[str]):
    fakes.add("quick")
    resolved = resolve("cpu")
    assert resolved.target.runtime == "slow"
    assert resolved.notices == (
        "runtime: slow, the fastest deployment runtime installed here; faster: quick (pip install quick_one two)",
    )
    fakes.add("slow")
    assert resolve("cpu").target.runtime == "eager"
    assert "faster: quick (pip install quick_one two), slow (pip install slow_one)" in resolve("cpu").notices[0]


def test_a_named_runtime_that_is_not_installed_is_refused(fakes: set[str]):
    fakes.add("quick")
    with pytest.raises(InputError, match=r"the runtime is not installed: 'quick \(pip install quick_one two\)'"):
        resolve("cpu:quick")


def test_an_absent_device_is_told_and_asks_for_no_runtime(fakes: set[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(targets, "gpu_count", lambda: 0)
    fakes.add("slow")
    resolved = resolve("gpu:slow")
    assert (resolved.target.device, resolved.target.runtime, resolved.present) == ("cuda:0", "slow", False)
    assert resolved.notices == ("no device gpu is here",)
    assert not resolve("cuda:1").present


def test_more_threads_than_cores_are_told(fakes: set[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(targets, "usable_cores", lambda: 2)
    assert "threads: 3 are more than the 2 cores" in resolve("cpu:eager,threads=3").notices[0]
    assert resolve("cpu:eager,threads=2").notices == ()


def test_every_runtime_says_what_the_protocol_asks():
    for name, module in runtimes().items():
        assert module.KINDS and set(module.KINDS) <= {"cpu", "gpu"}, name
        assert module.PRECISIONS and set(module.PRECISIONS) <= set(targets.PRECISIONS), name
        assert type(module.deployment) is int and module.deployment >= 0, name
        assert name not in (*targets.FLAGS, *targets.PRECISIONS), name
