"""Runtimes: every one that is installed gives what eager gives, within its precision, and refuses in words."""

from __future__ import annotations

import gc
import os
import signal
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.latency import runtimes, subject
from nas.latency.clock import OneThread, wall
from nas.latency.runtimes import Unsupported
from nas.latency.runtimes._refusal import refusing
from nas.latency.subject import Subject
from nas.latency.target import Target
from nas.model.spaces import load_named_space
from tests.forked import ranks

SLOW = {"compile", "executorch"}  # take many seconds to load a network: their networks here are single operators
INSTALLED = [name for name in runtimes.runtimes() if runtimes.installed(name) and "cpu" in runtimes.runtime(name).KINDS]
QUICK = [name for name in INSTALLED if name not in SLOW]
HALF = [name for name in INSTALLED if "bf16" in runtimes.runtime(name).PRECISIONS]


def small(*blocks: dict[str, str]) -> Architecture:
    """A network of a few small blocks on images of 16 pixels."""
    stage = {"embed": "patch(size=2)", "dim": 32, "class_token": True, "blocks": list(blocks)}
    return subject.read(
        {"name": "small", "input": 16, "classes": 10, "stages": [stage], "head": "class_token"}, "small"
    )


NETWORKS = {
    "tokens dropped": small(
        {"mixer": "softmax(heads=2)", "reduction": "evit(keep=0.5)"},
        {"mixer": "retention(heads=2)"},  # which sorts what is left
    ),
    "spectra, tokens merged": small(
        {"mixer": "spectral_filter"},
        {"mixer": "hyena(width=8, directions=four)"},
        {"mixer": "softmax(heads=2)", "reduction": "tome(r=16)"},
    ),
    "random": min(map(load_named_space("digits").sample, map(Random, range(8))), key=lambda one: len(one.blocks)),
}


def seeded(architecture: Architecture, batch: int = 1) -> Subject:
    torch.manual_seed(0)
    return subject.of_network(architecture, batch)


def outputs(result: Any) -> list[Tensor]:
    """What a runtime returned, as tensors of their own."""
    if isinstance(result, Tensor):
        return [result.clone()]
    arrays = [one if isinstance(one, Tensor | np.ndarray) else one.numpy() for one in result]
    return [torch.as_tensor(one).clone() for one in arrays]


def run(made: Subject, target: Target) -> list[Tensor]:
    return outputs(runtimes.runtime(target.runtime).load(made.module, made.inputs, target)())


def expected(made: Subject) -> list[Tensor]:
    with torch.inference_mode():
        return outputs(made.module(*made.inputs))


def check(made: Subject, target: Target) -> None:
    wanted, found = expected(made), run(made, target)
    assert [one.shape for one in found] == [one.shape for one in wanted]
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.to(two.dtype), two, atol=1e-4, rtol=1e-4)


def few_pieces() -> list[Subject]:
    """Operators and what enters them: all tokens, scores of the class token, a subset with its places."""
    torch.manual_seed(0)
    pieces = subject.operators(NETWORKS["tokens dropped"])
    return [made for name, made in pieces.items() if name.endswith(("mixer", "reduction"))]


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_gives_what_it_gives_in_eager(name: str, network: str) -> None:
    batch = 3 if network == "spectra, tokens merged" else 1
    check(seeded(NETWORKS[network], batch), Target(runtime=name, batch=batch))


@pytest.mark.parametrize("name", QUICK)
def test_the_clocks_reference_as_in_eager(name: str) -> None:
    torch.manual_seed(0)
    check(subject.reference(1), Target(runtime=name))


@pytest.mark.parametrize("name", QUICK)
def test_single_operators_as_in_eager(name: str) -> None:
    pieces = few_pieces()
    assert len(pieces) == 3
    for made in pieces:
        check(made, Target(runtime=name))


@pytest.mark.parametrize("name", [name for name in INSTALLED if name in SLOW])
def test_an_operator_in_a_runtime_that_is_slow_to_load(name: str) -> None:
    check(few_pieces()[0], Target(runtime=name))


@pytest.mark.skipif("compile" not in INSTALLED, reason="no torch.compile")
def test_spectra_compile_without_complex_numbers() -> None:
    torch.manual_seed(0)
    check(subject.operators(NETWORKS["spectra, tokens merged"])["stages.0.blocks.1.mixer"], Target(runtime="compile"))


@pytest.mark.parametrize("name", HALF)
def test_half_precision_differs_and_only_slightly(name: str) -> None:
    torch.manual_seed(0)
    made = Subject(nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)).eval(), (torch.randn(2, 64),))
    wanted = expected(made)[0]
    try:
        found = run(made, Target(runtime=name, precision="bf16"))[0].float()
    except Unsupported as reason:
        assert "no bfloat16" in str(reason)
        pytest.skip(str(reason))
    assert not torch.equal(found, wanted)
    assert torch.cosine_similarity(found, wanted).min().item() > 0.99


@pytest.mark.parametrize("name", QUICK)
def test_a_call_gives_the_same_again_and_leaves_torchs_threads(name: str) -> None:
    before = torch.get_num_threads()
    other = 2 if before == 1 else 1
    made = few_pieces()[0]
    call = runtimes.runtime(name).load(made.module, made.inputs, Target(runtime=name, threads=other))
    first, wanted = outputs(call()), expected(made)
    del made
    waste = [torch.full((1, 65, 32), 7.0) for _ in range(200)]  # into memory that inputs may have left
    assert all(torch.equal(one, two) for one, two in zip(first, outputs(call()), strict=True)) and waste
    torch.testing.assert_close(first[0], wanted[0], atol=1e-4, rtol=1e-4)
    assert torch.get_num_threads() == before


class SeesThreads(nn.Module):
    """Remembers how many threads torch had when it ran."""

    seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen = torch.get_num_threads()
        return x + 1


def _hear_signals_after_two_networks() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    for name in QUICK:
        loaded = [runtimes.runtime(name).load(nn.Linear(4, 4), (torch.randn(2, 4),), Target()) for _ in range(2)]
        while loaded:
            del loaded[0]  # the first to come is the first to go
            gc.collect()
        os.kill(os.getpid(), signal.SIGUSR1)
    assert heard == [signal.SIGUSR1] * len(QUICK)


def test_networks_that_are_gone_leave_signals_as_they_were(tmp_path: Path) -> None:
    """OpenVINO replaces the stack of signals on processors with AMX."""
    ranks(1, tmp_path, _hear_signals_after_two_networks)


def test_eager_runs_with_the_targets_threads() -> None:
    module = SeesThreads()
    wanted = torch.get_num_threads() + 1
    runtimes.runtime("eager").load(module, (torch.ones(2),), Target(threads=wanted))()
    assert module.seen == wanted


def test_openvino_and_onnxruntime_are_told_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime
    import openvino

    told: list[Any] = []
    compile_model, session = openvino.Core.compile_model, onnxruntime.InferenceSession

    def watched(self: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        compiled = compile_model(self, model, device, settings)
        told.append((settings["INFERENCE_NUM_THREADS"], compiled.get_property("INFERENCE_PRECISION_HINT")))
        return compiled

    def opened(model: bytes, options: Any, **rest: Any) -> Any:
        made = session(model, options, **rest)
        told.append(made.get_session_options().intra_op_num_threads)
        return made

    monkeypatch.setattr(openvino.Core, "compile_model", watched)
    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    piece = Subject(nn.Linear(4, 4).eval(), (torch.ones(2, 4),))
    for name in ("openvino", "onnxruntime"):
        check(piece, Target(runtime=name, threads=2))
    (threads, precision), others = told
    assert (threads, others) == (2, 2)
    assert precision.get_type_name() == "f32"


class Stubborn(nn.Module):
    """Looks at its numbers through NumPy to decide what to do: nothing that traces can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(np.sum(x.numpy())) > 0 else x.flip(0)


@pytest.mark.parametrize("name", [name for name in INSTALLED if name != "eager"])
def test_what_cannot_be_traced_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(Unsupported) as refused:
        runtimes.runtime(name).load(Stubborn().eval(), (torch.ones(3),), Target(runtime=name))
    reason = str(refused.value)
    assert ": " in reason and "\n" not in reason and len(reason) <= 300
    assert refused.value.__cause__ is not None


def test_what_eager_cannot_run_is_refused() -> None:
    with pytest.raises(Unsupported, match="torch: RuntimeError"):
        runtimes.runtime("eager").load(nn.Linear(3, 3), (torch.ones(4, 4),), Target())


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), RuntimeError("std::bad_alloc")]
)
def test_lack_of_memory_is_not_a_refusal(error: Exception) -> None:
    with pytest.raises(type(error)) as passed, refusing("loading"):
        raise error
    assert passed.value is error
    with pytest.raises(ValueError), refusing("loading"):  # also where it is the cause of another
        raise ValueError("compilation failed") from error


def test_without_a_compiler_compile_says_so() -> None:
    from torch._inductor import config

    changes = config.patch({"cpp.cxx": ("no-such-compiler",), "fx_graph_cache": False})
    with changes, pytest.raises(Unsupported, match=r"torch\.compile: .*no-such-compiler"):
        runtimes.runtime("compile").load(nn.Softmax(-1), (torch.rand(7, 11),), Target(runtime="compile"))


def test_many_networks_of_one_class_compile_in_one_process() -> None:
    from torch._dynamo import config

    runtime, calls = runtimes.runtime("compile"), []
    with config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True):
        for number in range(5):
            module = nn.Sequential(nn.Linear(2 + number, 3)).eval()
            calls.append((module, runtime.load(module, (torch.ones(1, 2 + number),), Target(runtime="compile"))))
        for number, (module, call) in enumerate(calls):
            torch.testing.assert_close(call(), module(torch.ones(1, 2 + number)).detach())


@pytest.mark.parametrize("name", [name for name in INSTALLED if name not in ("eager", "compile")])
def test_flags_of_torch_are_refused_elsewhere(name: str) -> None:
    with pytest.raises(Unsupported, match="channels_last"):
        runtimes.runtime(name).load(nn.ReLU(), (torch.ones(1),), replace(Target(runtime=name), channels_last=True))


def test_channels_last_is_honoured_by_eager() -> None:
    class Sees(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor(x.is_contiguous(memory_format=torch.channels_last))

    image = torch.ones(1, 3, 4, 4)
    assert runtimes.runtime("eager").load(Sees(), (image,), Target(channels_last=True))()
    assert not runtimes.runtime("eager").load(Sees(), (image,), Target())()


def test_every_runtime_says_what_it_needs() -> None:
    for name, module in runtimes.runtimes().items():
        assert module.KINDS.issubset({"cpu", "gpu"}) and module.PRECISIONS[0] == "fp32", name
        assert isinstance(module.deployment, int) and module.PACKAGES, name
    ranks = [module.deployment for module in runtimes.runtimes().values() if module.deployment]
    assert len(set(ranks)) == len(ranks)


def test_a_runtime_that_is_not_installed_is_known_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes.runtime("executorch"), "PACKAGES", ("no_such_package",))
    assert not runtimes.installed("executorch")
    with pytest.raises(InputError, match="executorch"):
        runtimes.runtime("executorsh")


def test_the_stopwatch_of_a_processor_is_the_wall_clock() -> None:
    assert runtimes.stopwatch(Target(threads=2)) is wall
    assert isinstance(runtimes.stopwatch(Target(threads=1)), OneThread)
