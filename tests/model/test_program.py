"""Programs: what torch.export and the ONNX file compute is what the module computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas.model.program import exported, onnx_model


class Sorts(nn.Module):
    """Sorts with ties, of which the first stays first."""

    def __init__(self, dim: int, descending: bool):
        super().__init__()
        self.dim, self.descending = dim, descending

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, places = x.sort(dim=self.dim, descending=self.descending, stable=True)
        return values, places


@pytest.mark.parametrize("dim, descending", [(0, False), (1, True), (-1, False)])
def test_a_stable_sort_in_onnx(dim: int, descending: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    x = torch.randint(0, 4, (9, 13), generator=torch.Generator().manual_seed(0))
    module = Sorts(dim, descending).eval()
    session = onnxruntime.InferenceSession(onnx_model(module, (x,)))
    values, places = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    wanted = module(x)
    assert torch.equal(torch.from_numpy(values), wanted[0])
    assert torch.equal(torch.from_numpy(places), wanted[1])


def test_a_program_is_the_modules() -> None:
    module, x = nn.Linear(3, 4).eval(), torch.ones(2, 3)
    program = exported(module, (x,))
    assert torch.equal(program.module()(x), module(x))


def test_onnx_keeps_inputs_that_nothing_reads_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")

    class Second(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return second + 1

    model = onnx.load_from_string(onnx_model(Second().eval(), (torch.ones(1), torch.ones(2))))
    assert [one.name for one in model.graph.input] == ["first", "second"]
    assert capsys.readouterr() == ("", "")
