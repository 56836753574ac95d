"""Estimates from data sheets: the closed form, what they follow, and bad sheets."""

from pathlib import Path

import pytest

from nas.core.cost import Cost, linear
from nas.core.errors import InputError
from nas.latency.roofline import Sheet, default_sheet, estimate, operator_ms, sheet, sheets
from nas.latency.target import Target
from nas.model.reference import load_reference

SOURCES = {"macs_per_second": "here", "bytes_per_second": "here", "overhead_us": "here"}
GPU = Sheet(
    name="a gpu",
    kind="gpu",
    macs_per_second={"fp32": 1e9, "fp16": 4e9},
    bytes_per_second=1e6,
    overhead_us=10,
    sources=SOURCES,
)
CPU = GPU.model_copy(update={"kind": "cpu", "name": "a cpu", "cores": 4, "core_bytes_per_second": 4e5})
FP32, FP16 = Target("cuda:0", threads=0), Target("cuda:0", precision="fp16", threads=0)
FILE = """\
mine:
  name: my board
  kind: cpu
  cores: 2
  macs_per_second: {fp32: 1e9}
  bytes_per_second: 1e9
  overhead_us: 5
  sources: {macs_per_second: a, bytes_per_second: b, overhead_us: c, cores: d}
"""


def test_one_linear_layer_in_closed_form():
    cost = linear(rows=1000, inputs=100, outputs=50)
    macs, params, activation = 1000 * 100 * 50, 100 * 50 + 50, 1000 * 150
    assert (cost.macs, cost.params, cost.activation) == (macs, params, activation)
    wide = GPU.model_copy(update={"bytes_per_second": 1e12})
    assert operator_ms(cost, wide, FP32) == (pytest.approx(1e3 * macs / 1e9 + 0.01), "compute")
    assert operator_ms(cost, wide, FP16) == (pytest.approx(1e3 * macs / 4e9 + 0.01), "compute")
    assert operator_ms(cost, GPU, FP32) == (pytest.approx(1e3 * 4 * (params + activation) / 1e6 + 0.01), "memory")
    assert operator_ms(cost, GPU, FP16)[0] == pytest.approx(1e3 * 2 * (params + activation) / 1e6 + 0.01)
    batch = Target("cuda:0", batch=3, threads=0)
    assert operator_ms(cost, GPU, batch)[0] == pytest.approx(1e3 * 4 * (params + 3 * activation) / 1e6 + 0.01)
    assert operator_ms(cost, wide, batch)[0] == pytest.approx(3e3 * macs / 1e9 + 0.01)


def test_threads_share_the_memory():
    product, moved = Cost(macs=10**6), Cost(params=10**6)
    assert operator_ms(product, CPU, Target(threads=2))[0] == pytest.approx(0.5 + 0.01)
    assert operator_ms(moved, CPU, Target(threads=2))[0] == pytest.approx(5000 + 0.01)  # 4 MB at 0.8 MB/s
    assert operator_ms(moved, CPU, Target(threads=4))[0] == pytest.approx(4000 + 0.01)  # at the 1 MB/s of the device


def test_it_grows_with_the_products():
    times = [operator_ms(Cost(macs=macs), GPU, FP32)[0] for macs in (0, 10**3, 10**6, 10**9)]
    assert times == sorted(times) and len(set(times)) == 4
    transform = operator_ms(Cost(transform=2 * 10**6), GPU, FP32)
    assert transform == operator_ms(Cost(macs=10**6), GPU, FP32)


@pytest.mark.parametrize("name", sheets())
def test_every_sheet_orders_the_deits(name: str):
    told = sheet(name)
    target = Target("cpu") if told.kind == "cpu" else FP32
    found = [estimate(load_reference(f"deit_{size}").architecture, name, target) for size in ("tiny", "small", "base")]
    assert found[0].ms < found[1].ms < found[2].ms
    for result in found:
        assert result.estimated and result.ms == pytest.approx(sum(part.ms for part in result.parts))
        assert result.text == f"estimated, not measured (roofline of the data sheet of {told.name})"
        assert [part.kind for part in result.parts][:4] == ["embed", "position", "mixer", "feedforward"]
    floor = 1e3 * 4.5e9 / (told.macs_per_second["fp32"])  # DeiT-S has 4.6 GMACs
    assert found[1].ms > floor


def test_reduction_of_tokens_is_seen():
    target = Target("cpu")
    whole, reduced = (load_reference(name).architecture for name in ("deit_small", "evit_deit_small_k7"))
    assert estimate(reduced, "raspberry-pi-5", target).ms < 0.8 * estimate(whole, "raspberry-pi-5", target).ms


def test_each_kind_has_a_default():
    assert sheet(default_sheet("cpu")).kind == "cpu"
    assert sheet(default_sheet("gpu")).kind == "gpu"


def test_an_unknown_device_names_the_nearest():
    with pytest.raises(InputError, match=r"no data sheet.*'nvidia-h20' \(nearest: nvidia-h200"):
        sheet("nvidia-h20")


@pytest.mark.parametrize(
    ("told", "target", "message"),
    [
        (
            GPU,
            Target("cuda:0", precision="bf16"),
            r"a gpu has no figure for the precision: 'bf16' \(nearest: fp32, fp16",
        ),
        (GPU, Target("cpu"), "a data sheet of a gpu, the target is a cpu"),
        (CPU, Target("cpu", threads=5), "a cpu has 4 cores: 'threads=5'"),
    ],
)
def test_what_a_sheet_cannot_tell_is_refused(told: Sheet, target: Target, message: str):
    with pytest.raises(InputError, match=message):
        operator_ms(Cost(macs=1), told, target)


def test_a_file_of_ones_own(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(FILE)
    network = load_reference("deit_tiny").architecture
    assert estimate(network, "mine", Target("cpu", threads=2), path).ms > 1e3 * 1.2e9 / 2e9


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cores: 2", "coers: 2", r"mine.coers: Extra inputs are not permitted.*nearest: cores"),
        ("1e9\n  over", "-1\n  over", r"mine.bytes_per_second: Input should be greater than 0: -1"),
        ("fp32: 1e9", "fp8: 1e9", r"mine.macs_per_second.fp8"),
        ("kind: cpu", "kind: tpu", r"mine.kind: Input should be 'cpu' or 'gpu': 'tpu'"),
        (", cores: d", "", r"mine: .*each figure has its source: cores"),
        ("  overhead_us: 5\n", "", "mine.overhead_us: Field required"),
        ("1e9}", ".inf}", "numbers are finite"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, old: str, new: str, message: str):
    path = tmp_path / "mine.yaml"
    assert old in FILE
    path.write_text(FILE.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        sheets(path)


@pytest.mark.parametrize("text", ["[]", "{}", "mine: 3"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError):
        sheets(path)
