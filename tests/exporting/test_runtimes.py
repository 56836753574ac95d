"""Targets that are runtimes: their files give what the network gives, are the same every time, and name no path."""

from __future__ import annotations

import copy
import io
import json
import math
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.bench import main
from nas.benching import export
from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.exporting.subject import Subject
from nas.exporting.targets import Refused, _archive, _programs, _torchao, missing, target
from nas.latency.runtimes import Unsupported
from nas.latency.runtimes.executorch import lowered
from nas.latency.subject import read
from nas.model.network import Network

EXACT = [name for name in ("torch_export", "onnx", "openvino") if not missing(name)]
INT8 = ("int8_weights", "int8_dynamic")


def architecture(stages: list[dict[str, Any]], **more: Any) -> Architecture:
    return read({"name": "small", "input": 16, "classes": 10, "channels": 1, "stages": stages, **more}, "small")


NETWORKS = {
    "tokens dropped, exits": architecture(
        [
            {
                "embed": "stem_halving(convs=2)",  # norms that are folded
                "dim": 32,
                "class_token": True,
                "position": "learned",
                "blocks": [
                    {"mixer": "softmax(heads=2)", "reduction": "evit(keep=0.5)", "exit": "linear(threshold=0.247)"},
                    {"mixer": "retention(heads=2)", "feedforward": "mlp(ratio=2)"},  # which sorts what is left
                ],
            }
        ],
        head="class_token",
    ),
    "windows, spectra": architecture(
        [
            {
                "embed": "patch(size=2)",
                "dim": 16,
                "blocks": [
                    {"mixer": "window(size=4, shift=true, heads=2)"},
                    {"mixer": "spectral_filter"},
                    {"mixer": "softmax(heads=2)", "reduction": "tome(r=4)"},
                ],
            },
        ],
        head="mean",
    ),
}
PLAIN = architecture(
    [{"embed": "patch(size=4)", "dim": 32, "blocks": [{"mixer": "softmax(heads=2)", "feedforward": "mlp(ratio=2)"}]}],
    head="mean",
)


def subject_of(architecture: Architecture) -> Subject:
    """Random weights, with those moved that a fresh network has at 0 and 1, and logits of unit scale."""
    torch.manual_seed(0)
    network = Network(architecture).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    made = Subject("small", architecture, network, trained=False)
    with torch.no_grad():
        for closing, (_, logits) in zip(
            [*network.exits, network.head], network.forward_exits(made.images(8)), strict=True
        ):
            closing.classifier.weight.div_(logits.std())
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], tuple[Subject, Path]]]:
    """Every network in every exact target, written once."""
    found = {}
    for network, described in NETWORKS.items():
        subject = subject_of(described)
        for name in EXACT:
            folder = tmp_path_factory.mktemp(name)
            target(name).write(subject, folder)
            found[network, name] = subject, folder
    yield found


def eager(network: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(images)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_file_gives_what_the_network_gives(written: Any, network: str, name: str) -> None:
    subject, folder = written[network, name]
    for batch in (1, 4):
        images = subject.images(batch, seed=7)
        wanted = eager(subject.network, images)
        call = target(name).load(folder, images)
        torch.testing.assert_close(call(), wanted, atol=target(name).TOLERANCE, rtol=0)
        assert torch.equal(call(), call())
    assert not subject.network.fused and not subject.network.training, "the network is left as it was"


@pytest.mark.parametrize("name", EXACT)
def test_files_name_no_path_and_no_line_of_code(written: Any, name: str) -> None:
    roots = {str(Path(root).resolve()) for root in (tempfile.gettempdir(), sys.prefix, Path.cwd(), Path.home())}
    told = [
        b"site-packages",
        b"network.py",
        b"stack_trace",
        b"from_node",
        *(f"{root}/".encode() for root in roots if root != "/"),
    ]
    for network in NETWORKS:
        _, folder = written[network, name]
        for path in folder.iterdir():
            data = path.read_bytes()
            if path.suffix == ".pt2":
                with zipfile.ZipFile(path) as archive:
                    data = b"".join(map(archive.read, archive.namelist()))
            assert not [word for word in told if word in data], path.name


@pytest.mark.parametrize("name", EXACT)
def test_the_same_bytes_every_time(written: Any, name: str, tmp_path: Path) -> None:
    network = "tokens dropped, exits"
    _, folder = written[network, name]
    target(name).write(subject_of(NETWORKS[network]), tmp_path)
    assert contents(tmp_path) == contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", EXACT)
def test_a_truncated_file_is_an_error(written: Any, name: str, tmp_path: Path) -> None:
    subject, folder = written["windows, spectra", name]
    for damaged in folder.iterdir():
        for path in folder.iterdir():
            data = path.read_bytes()
            (tmp_path / path.name).write_bytes(data[: len(data) // 2] if path == damaged else data)
        with pytest.raises(InputError, match=str(tmp_path)):
            target(name).load(tmp_path, subject.images())


def test_names_and_open_batches_of_the_formats(written: Any) -> None:
    """A user finds `image` and `logits`; ordinary networks take any batch."""
    onnxruntime, openvino = pytest.importorskip("onnxruntime"), pytest.importorskip("openvino")
    for network in NETWORKS:
        session = onnxruntime.InferenceSession(str(written[network, "onnx"][1] / "model.onnx"))
        (slot,), (out,) = session.get_inputs(), session.get_outputs()
        assert (slot.name, slot.shape, out.name) == ("image", ["batch", 1, 16, 16], "logits")
        model = openvino.Core().read_model(written[network, "openvino"][1] / "model.xml")
        assert model.input("image").get_partial_shape() == openvino.PartialShape([-1, 1, 16, 16])
        assert model.output("logits").get_element_type() == openvino.Type.f32


def test_usage_runs_as_it_stands(written: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The lines of the card, run in a folder of an export."""
    for name in EXACT:
        subject, folder = written["windows, spectra", name]
        (tmp_path / name).symlink_to(folder)
        images = subject.images()
        scope: dict[str, Any] = {"images": images if name == "torch_export" else images.numpy()}
        with monkeypatch.context() as context:
            context.chdir(tmp_path)
            exec(target(name).usage("small"), scope)
        torch.testing.assert_close(torch.as_tensor(scope["logits"]), eager(subject.network, images), atol=1e-4, rtol=0)


class OneAtATime(nn.Module):
    """Counts its images in Python: no program of it is for any batch."""

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1)[:, :10] * 2 if int(image.shape[0]) == 1 else image.flatten(1)[:, :10] + image.shape[0]


class Stubborn(nn.Module):
    """Decides by its numbers."""

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1) if float(image.numpy().sum()) > 0 else image.flatten(1) * 2


def test_where_a_batch_cannot_be_open_images_go_one_by_one(tmp_path: Path) -> None:
    subject = subject_of(PLAIN)
    _programs.write(subject, tmp_path, OneAtATime().eval(), _archive.archived, _archive.opened)
    images = subject.images(3)
    found = _programs.bound(_archive.opened, tmp_path, images, 1)()
    assert torch.equal(found, images.flatten(1)[:, :10] * 2)


def test_what_cannot_be_traced_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"^torch\.export: ") as refused:
        _programs.write(subject_of(PLAIN), tmp_path, Stubborn().eval(), _archive.archived, _archive.opened)
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


def test_a_runtime_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    def wrong(folder: Path, threads: int) -> _programs.Runner:
        run = _archive.opened(folder, threads)
        return lambda images: run(images) + 1e-3

    subject = subject_of(PLAIN)
    with pytest.raises(Refused, match="images differ by"):
        _programs.write(subject, tmp_path, copy.deepcopy(subject.network), _archive.archived, wrong)
    assert not list(tmp_path.iterdir())


class Planted:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_pickle_in_an_archive_is_never_opened(written: Any, tmp_path: Path) -> None:
    """torch.export.load itself runs what is planted there."""
    mark, file = tmp_path / "mark", tmp_path / "model.pt2"
    buffer = io.BytesIO()
    torch.save((Planted(mark), {}), buffer)
    subject, folder = written["windows, spectra", "torch_export"]
    with zipfile.ZipFile(folder / "model.pt2") as source, zipfile.ZipFile(file, "w") as made:
        for member in source.infolist():
            planted = member.filename.endswith("sample_inputs/model.pt")
            made.writestr(member.filename, buffer.getvalue() if planted else source.read(member))
    with pytest.raises(InputError, match="sample_inputs"):
        target("torch_export").load(tmp_path, subject.images())
    assert not mark.exists()
    torch.export.load(file)
    assert mark.exists()


def test_a_tensor_that_says_it_is_pickled_is_never_opened(written: Any, tmp_path: Path) -> None:
    subject, folder = written["windows, spectra", "torch_export"]
    with zipfile.ZipFile(folder / "model.pt2") as source, zipfile.ZipFile(tmp_path / "model.pt2", "w") as made:
        for member in source.infolist():
            data = source.read(member)
            if member.filename.endswith("weights_config.json"):
                assert b'"use_pickle": false' in data
                data = data.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
            made.writestr(member.filename, data)
    with pytest.raises(InputError, match="pickled"):
        target("torch_export").load(tmp_path, subject.images())


def rounded(x: Tensor) -> Tensor:
    """Eight bits for each row: 255 levels between minus and plus its largest number."""
    scale = (x.abs().amax(dim=-1, keepdim=True) / 127.5).clamp(min=torch.finfo(torch.float32).eps)
    return (x * (1 / scale)).round().clamp(-128, 127) * scale


class Rounded(nn.Module):
    """A linear layer in float32 on rounded weights, and rounded activations where asked for."""

    def __init__(self, layer: nn.Linear, activations: bool):
        super().__init__()
        self.weight, self.bias, self.activations = rounded(layer.weight), layer.bias, activations

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(rounded(x) if self.activations else x, self.weight, self.bias)


# A process in which neither torchao nor this project can be imported.
WITH_TORCH_ALONE = """
import sys
sys.modules.update(dict.fromkeys(["torchao", "nas", "timm"]))
import torch
file, images, logits = sys.argv[1:]
torch.set_num_threads(1)
with torch.no_grad():
    torch.save(torch.export.load(file).module()(torch.load(images)), logits)
"""


@pytest.mark.parametrize("name", INT8)
def test_int8_is_rounding_in_float32(name: str, tmp_path: Path) -> None:
    """The file beside the plain computation, which knows nothing of integers."""
    if lacking := missing(name):
        pytest.skip(f"not installed: {', '.join(lacking)}")
    subject = subject_of(PLAIN)
    target(name).write(subject, tmp_path)
    plain = copy.deepcopy(subject.network).fuse()
    chosen = _torchao.layers(plain, subject.images(1), subject.images(1, seed=1))
    assert len(chosen) == 4  # q, k and v as one, out, and two of the MLP; the classifier has ten outputs
    for layer in chosen:
        plain.set_submodule(layer, Rounded(plain.get_submodule(layer), name == "int8_dynamic"))
    images = subject.images(3, seed=5)
    found = target(name).load(tmp_path, images)()
    torch.testing.assert_close(found, eager(plain, images), atol=1e-4, rtol=0)
    off = (found - eager(subject.network, images)).abs().max().item()
    assert 1e-4 < off <= target(name).TOLERANCE * max(1.0, found.abs().max().item())
    torch.save(images, tmp_path / "images.pt")
    names = ["model.pt2", "images.pt", "logits.pt"]
    subprocess.run([sys.executable, "-c", WITH_TORCH_ALONE, *names], cwd=tmp_path, check=True, timeout=120)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), found, atol=1e-6, rtol=0)
    before = contents(tmp_path)
    target(name).write(subject, tmp_path)
    assert contents(tmp_path) == before


def test_executorch_tells_which_kernels_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build with fewer kernels than this one."""
    if lacking := missing("executorch"):
        pytest.skip(f"not installed: {', '.join(lacking)}")
    from executorch.runtime import OperatorRegistry

    monkeypatch.setattr(OperatorRegistry, "operator_names", {"aten::add.out"})
    program = torch.export.export(nn.LayerNorm(4).eval(), (torch.randn(1, 4),))
    with pytest.raises(Unsupported, match=r"no portable kernel of .*aten::native_layer_norm\.out"):
        lowered(program)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        pytest.param(nn.GELU(), (1, 80), id="gelu"),
        pytest.param(nn.GELU("tanh"), (1, 80), id="gelu by tanh"),
        pytest.param(nn.Fold((4, 5), 3, padding=1), (1, 2 * 9, 4 * 5), id="fold"),
    ],
)
def test_executorch_runs_what_it_has_no_kernel_of(module: nn.Module, shape: tuple[int, ...]) -> None:
    """XNNPACK has the exact GELU alone, 2e-4 away from the other, and takes both for it."""
    if lacking := missing("executorch"):
        pytest.skip(f"not installed: {', '.join(lacking)}")
    from executorch.runtime import Runtime

    images = torch.linspace(-4, 4, math.prod(shape)).reshape(shape)
    method = Runtime.get().load_program(lowered(torch.export.export(module, (images,)))).load_method("forward")
    torch.testing.assert_close(method.execute([images])[0], module(images), atol=2e-5, rtol=0)


def test_executorch_runs_a_network_that_has_windows_and_sorts(tmp_path: Path) -> None:
    """Windows are cut and put together in more dimensions than XNNPACK's tensors have; sorting has no kernel."""
    if lacking := missing("executorch"):
        pytest.skip(f"not installed: {', '.join(lacking)}")
    dropped = {"mixer": "softmax(heads=2)", "reduction": "evit(keep=0.5)", "feedforward": "mlp(ratio=2)"}
    windows = [{"mixer": "window(size=4, shift=true, heads=2)"}, {"mixer": "stripes(stripe=2, heads=2)"}]
    blocks = [*windows, dropped, {"mixer": "retention(heads=2)"}]
    stage = {"embed": "stem_halving(convs=2)", "dim": 32, "class_token": True, "blocks": blocks}
    subject = subject_of(architecture([stage], head="class_token"))
    target("executorch").write(subject, tmp_path)
    images = subject.steady(2, seed=3)
    found = target("executorch").load(tmp_path, images)()
    torch.testing.assert_close(found, eager(subject.network, images), atol=1e-4, rtol=0)


def test_the_benchmark_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "--space", "digits_small", "--networks", "1", "--targets", "torch_export", "--json"]
    found = []
    for _ in range(2):
        assert main([*command, "--kept", str(tmp_path / "kept.json")]) == 0
        found.append(json.loads(capsys.readouterr().out)["rows"])
    ((row,), again) = found
    assert again == [row], "seconds included: nothing was made again"
    assert (row["network"], row["target"], row["refused"], row["failed"]) == (
        "digits_small-0-0",
        "torch_export",
        None,
        None,
    )
    assert row["max_diff"] <= 1e-4 and row["megabytes"] > 0


def test_a_process_that_dies_costs_one_row() -> None:
    """A network that cannot even be made ends its process."""
    rows = export.isolated({"name": "none", "space": "no_such_space", "number": 0, "seed": 0}, ["onnx"])
    assert "onnx: none: its process ended with code 1" in export.table({"tolerances": {"onnx": 1e-4}, "rows": rows})
