"""Devices: names for tables, what the system tells of a processor or GPU, and measured ceilings."""

import re
import sys
from types import SimpleNamespace

import pytest
import torch

from nas.core.errors import InputError
from nas.latency import device as devices
from nas.latency.device import ceilings, processor, slug, this_device, versions
from nas.latency.target import Target

XEON = """\
processor : 0
cpu family : 6
model : 207
model name : Intel(R) Xeon(R) Processor
stepping : 2
flags : fpu avx avx2 fma {}
processor : 1
cpu family : 6
model : 207
stepping : 2
flags : fpu avx avx2 fma {}
"""
ARM = "processor : 0\nFeatures : fp asimd asimdhp asimddp\nCPU implementer : 0x41\nCPU part : 0xd05\n"
ARM += "processor : 1\nFeatures : fp asimd asimdhp asimddp\nCPU implementer : 0x41\nCPU part : 0xd0b\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Intel(R) Xeon(R) Processor", "intel-xeon-processor"),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "intel-xeon-platinum-8481c"),
        ("AMD Ryzen 9 5950X 16-Core Processor", "amd-ryzen-9-5950x-16-core-processor"),
        ("NVIDIA A100-SXM4-80GB", "nvidia-a100-sxm4-80gb"),
        ("../../etc/passwd", "etc-passwd"),
        ("", "unknown"),
    ],
)
def test_a_key_is_a_file_name(name: str, expected: str):
    assert slug(name) == expected
    assert re.fullmatch("[a-z0-9-]{1,80}", slug(name * 20))


def test_processors_of_one_general_name_have_keys_of_their_own():
    name = "Intel(R) Xeon(R) Processor"
    amx = processor(name, XEON.format(*["avx512f amx_tile amx_bf16"] * 2))
    avx512 = processor(name, XEON.format(*["avx512f"] * 2))
    other = processor(name, XEON.format("avx512f", "avx512f").replace("207", "143"))
    assert amx.key == "intel-xeon-processor-6-207-2-amx"
    assert avx512.key == "intel-xeon-processor-6-207-2-avx512"
    assert other.key == "intel-xeon-processor-6-143-2-avx512"
    assert amx.instructions == ("amx_tile", "amx_bf16", "avx512f", "avx2", "fma")


def test_a_model_number_needs_no_further_numbers():
    found = processor("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", XEON.format("avx512f", "avx512f"))
    assert found.key == "intel-xeon-platinum-8481c-avx512"


def test_an_arm_processor_is_told_by_its_parts():
    found = processor("aarch64", ARM)
    assert found.key == "aarch64-0x41-0xd05-0xd0b-neon"
    assert found.instructions == ("asimd", "asimdhp", "asimddp")


def test_a_system_that_tells_nothing_still_has_a_device():
    found = processor("Apple M2", "")
    assert (found.key, found.instructions, found.kind) == ("apple-m2", (), "cpu")
    assert found.cores >= 1 and found.memory_bytes > 0


def test_this_processor_is_the_same_each_time():
    found = this_device(Target())
    assert found == this_device(Target(batch=16))
    assert found.to_dict()["key"] == found.key
    assert versions(Target())["torch"].startswith(torch.__version__.partition("+")[0])


def test_a_gpu_as_torch_and_the_management_library_tell_it(monkeypatch: pytest.MonkeyPatch):
    told = SimpleNamespace(name="NVIDIA H200", major=9, minor=0, multi_processor_count=132, total_memory=10, uuid="1-2")
    monkeypatch.setattr(devices, "gpu_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: told)
    monkeypatch.setattr(devices, "_driver", lambda: "555.1")
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    found = this_device(Target("cuda:0"))
    assert (found.key, found.cores, found.instructions) == ("nvidia-h200", 132, ("sm_90",))
    assert (found.driver, found.power_limit_watts) == ("555.1", None)

    library = FakeLibrary()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    managed = this_device(Target("cuda:0"))
    assert (managed.driver, managed.power_limit_watts) == ("570.2", 700.0)
    library.allowed = False  # a part of a GPU
    assert this_device(Target("cuda:0")).driver == "570.2"
    assert this_device(Target("cuda:0")).power_limit_watts is None
    assert library.opened == 0

    with pytest.raises(InputError, match="this machine has no such device: 'cuda:1'"):
        this_device(Target("cuda:1"))


class FakeLibrary:
    """What is used of NVIDIA's management library."""

    class NVMLError(Exception):
        pass

    def __init__(self):
        self.allowed, self.opened = True, 0

    def nvmlInit(self):
        self.opened += 1

    def nvmlShutdown(self):
        self.opened -= 1

    def nvmlSystemGetDriverVersion(self):
        return "570.2"

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if not self.allowed:
            raise self.NVMLError
        return uuid

    def nvmlDeviceGetPowerManagementLimit(self, handle):
        assert handle == "GPU-1-2"
        return 700_000


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ceilings_are_measured_and_leave_the_threads_alone(monkeypatch: pytest.MonkeyPatch, precision: str):
    monkeypatch.setattr(devices, "COPY_BYTES", {"cpu": 48_000_000})
    used: list[int] = []
    multiply = torch.mm

    def watched(*matrices, out):
        used.append(torch.get_num_threads())
        return multiply(*matrices, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    before = torch.get_num_threads()
    found = ceilings(Target(precision=precision, threads=before + 1), seconds=0.1)
    assert torch.get_num_threads() == before
    assert set(used) == {before + 1}
    assert set(found) == {"macs_per_second", "bytes_per_second"}
    assert 1e7 < found["macs_per_second"] < 1e15 and 1e7 < found["bytes_per_second"] < 1e13


def test_threads_are_restored_after_a_failure(monkeypatch: pytest.MonkeyPatch):
    def broken(*matrices, out):
        raise RuntimeError("no products today")

    monkeypatch.setattr(torch, "mm", broken)
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="no products today"):
        ceilings(Target(threads=before + 1), seconds=0.1)
    assert torch.get_num_threads() == before


def test_versions_find_a_package_by_its_import_name(monkeypatch: pytest.MonkeyPatch):
    packages = ("yaml", "no_such_package")
    monkeypatch.setattr(devices, "runtime", lambda name: SimpleNamespace(PACKAGES=packages))
    assert set(versions(Target())) == {"torch", "yaml"}  # installed as PyYAML
