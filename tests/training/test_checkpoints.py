"""Checkpoints read back bit for bit, appear whole, survive kills, full disks and damage; the newest sound one wins."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.core.errors import InputError
from nas.core.runs import read_json, write_json
from nas.training import checkpoints as module
from nas.training.checkpoints import DTYPES, MANIFEST, TENSORS, Checkpoints

STATE = {"epoch": 1.5, "best": None, "history": [0.1, -2e-300, 3], "name": "é"}


def tensors_of(step: int, size: int = 1000) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {"weight": torch.randn(size, generator=generator), "step": torch.tensor(step)}


def bytes_of(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def in_child(action: Callable[[], Any]) -> int:
    """The exit code of a process that does this: 0, 1 if it raises InputError, or minus the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)  # the others were the parent's
        code = 70
        with contextlib.suppress(BaseException):
            try:
                action()
                code = 0
            except InputError:
                code = 1
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die(*arguments: Any, **options: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def two(tmp_path: Path) -> Checkpoints:
    """Checkpoints of steps 10 and 20."""
    made = Checkpoints(tmp_path / "checkpoints")
    for step in (10, 20):
        made.save(step, tensors_of(step), {"step": step})
    made.close()
    return made


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_dtype_and_shape_read_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    noise = torch.randint(0, 2, (4, 6, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    matrix = noise.to(dtype) if dtype is torch.bool else (255 * noise).view(dtype)  # NaN among them
    given = {
        "matrix": matrix,
        "scalar": matrix[0, 0, 0].clone(),
        "none": matrix[:, :0],
        "columns": matrix.clone().transpose(0, 1)[::2],
        "expanded": matrix[0, 0, 1].clone().expand(3, 2),
        "": matrix[0, 1].clone(),
    }
    Checkpoints(tmp_path).save(7, given, STATE)
    saved = Checkpoints(tmp_path).latest()
    assert saved is not None
    assert (saved.step, saved.state, saved.path) == (7, STATE, tmp_path / "step-000000007")
    assert set(saved.tensors) == set(given)
    for name, value in given.items():
        again = saved.tensors[name]
        assert (again.dtype, again.shape, again.device.type) == (value.dtype, value.shape, "cpu")
        assert torch.equal(bytes_of(again), bytes_of(value))


def test_a_checkpoint_without_tensors(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(0, {}, None)
    saved = Checkpoints(tmp_path).load(0)
    assert (saved.tensors, saved.state) == ({}, None)


def test_what_is_read_is_its_own_memory(two: Checkpoints) -> None:
    saved = two.load(20)
    saved.tensors["weight"].zero_()
    shutil.rmtree(saved.path)
    assert float(saved.tensors["weight"].abs().sum()) == 0
    assert float(saved.tensors["step"]) == 20


def test_training_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    def begin() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    whole, optimizer = begin()
    train(whole, optimizer, 0, 3)
    names = [f"{i}.{key}" for i, values in optimizer.state_dict()["state"].items() for key in values]
    moments = dict(zip(names, (t for s in optimizer.state.values() for t in s.values()), strict=True))
    Checkpoints(tmp_path).save(3, {**whole.state_dict(), **moments}, None)
    train(whole, optimizer, 3, 6)

    resumed, fresh = begin()
    saved = Checkpoints(tmp_path).load(3)
    resumed.load_state_dict({key: saved.tensors[key] for key in resumed.state_dict()})
    state: dict[int, dict[str, Tensor]] = {}
    for name in names:
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = saved.tensors[name]
    fresh.load_state_dict({**fresh.state_dict(), "state": state})
    train(resumed, fresh, 3, 6)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_names_of_one_tensor_are_written_once_and_read_as_one(tmp_path: Path) -> None:
    shared = torch.arange(100_000.0)
    halves = torch.arange(20.0)
    parameter = nn.Parameter(shared)
    given = {"a": shared, "b": shared, "c": parameter.detach(), "low": halves[:10], "high": halves[10:]}
    path = Checkpoints(tmp_path).save(1, given, None)
    assert path is not None
    assert (path / TENSORS).stat().st_size < 1.1 * 4 * shared.numel()
    saved = Checkpoints(tmp_path).load(1)
    assert saved.tensors["a"] is saved.tensors["b"] is saved.tensors["c"]
    assert all(torch.equal(saved.tensors[name], value) for name, value in given.items())


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"whole": (x := torch.arange(9.0)), "part": x[3:]}, "share all of their memory or none: 'whole and part'"),
        ({"a": (y := torch.ones(4, 4)), "b": y.T}, "share all of their memory or none"),
        ({"a": y[:, :2], "b": y[:, 1:]}, "share all of their memory or none"),
        ({"a": y, "b": y.view(torch.int32)}, "share all of their memory or none"),
        ({"sparse": torch.eye(2).to_sparse()}, "dense tensors .*sparse"),
        ({"meta": torch.empty(2, device="meta")}, "dense tensors .*meta"),
        ({"wide": torch.zeros(2, dtype=torch.complex128)}, "plain dtype.*complex128"),
        ({"number": 3}, "tensors by name"),
        ({3: torch.ones(1)}, "tensors by name"),
        ({"__metadata__": torch.ones(1)}, "tensors by name"),
    ],
)
def test_tensors_that_would_not_come_back_are_refused(tmp_path: Path, tensors: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        Checkpoints(tmp_path / "new").save(1, tensors, None)
    assert not (tmp_path / "new").exists()


def test_figures_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one"):
        Checkpoints(tmp_path, keep=0)
    made = Checkpoints(tmp_path)
    with pytest.raises(InputError, match="step of a checkpoint"):
        made.save(-1, {}, None)
    with pytest.raises(InputError, match="cannot be written as JSON"):
        made.save(1, tensors_of(1), {"loss": float("nan")})
    assert listing(tmp_path) == []
    assert made.latest() is None
    assert made.problems == []
    assert Checkpoints(tmp_path / "missing").latest() is None


def test_the_manifest_tells_what_wrote_it(two: Checkpoints) -> None:
    content = read_json(two.folder / "step-000000020" / MANIFEST)
    data = (two.folder / "step-000000020" / TENSORS).read_bytes()
    assert content["format"] == 1
    assert content["tensors"] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert content["versions"]["torch"] == torch.__version__
    assert set(content["versions"]) == {"nas", "torch", "safetensors"}
    modes = {(path.stat().st_mode & 0o777) for path in (two.folder / "step-000000020").iterdir()}
    assert len(modes) == 1


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    made = Checkpoints(tmp_path, keep=2)
    for step in range(0, 5):
        made.save(step, tensors_of(step), None)
        assert made.steps == list(range(max(0, step - 1), step + 1))
    assert listing(tmp_path) == ["step-000000003", "step-000000004"]
    with pytest.raises(InputError, match=r"no checkpoint of this step: 1 \(nearest: 3, 4\)"):
        made.load(1)


def test_a_step_that_is_saved_again_replaces_the_first(two: Checkpoints) -> None:
    two.save(20, tensors_of(99), "again")
    assert listing(two.folder) == ["step-000000010", "step-000000020-1"]
    saved = two.latest()
    assert saved is not None
    assert (saved.step, saved.state) == (20, "again")
    assert torch.equal(saved.tensors["weight"], tensors_of(99)["weight"])
    two.save(20, tensors_of(20), "third")
    assert listing(two.folder) == ["step-000000010", "step-000000020-2"]


def test_a_run_that_went_back_leaves_no_later_steps(two: Checkpoints) -> None:
    two.save(15, tensors_of(15), None)
    assert two.steps == [10, 15]


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "truncated tensors": lambda path: os.truncate(path / TENSORS, 100),
    "empty tensors": lambda path: os.truncate(path / TENSORS, 0),
    "longer tensors": lambda path: os.truncate(path / TENSORS, 1_000_000),
    "missing tensors": lambda path: (path / TENSORS).unlink(),
    "flipped header": lambda path: flip(path / TENSORS, 20),
    "flipped value": lambda path: flip(path / TENSORS, -1),
    "truncated manifest": lambda path: os.truncate(path / MANIFEST, 50),
    "empty manifest": lambda path: os.truncate(path / MANIFEST, 0),
    "missing manifest": lambda path: (path / MANIFEST).unlink(),
    "flipped manifest": lambda path: flip(path / MANIFEST, -20),
    "folder in place of a file": lambda path: ((path / TENSORS).unlink(), (path / TENSORS).mkdir()),
    "empty folder": lambda path: [file.unlink() for file in path.iterdir()],
    "another step's": lambda path: shutil.copytree(path.parent / "step-000000010", path, dirs_exist_ok=True),
}


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_passed_over_and_told(two: Checkpoints, damage: str) -> None:
    newest = two.folder / "step-000000020"
    DAMAGE[damage](newest)
    saved = two.latest()
    assert saved is not None
    assert saved.step == 10
    assert len(two.problems) == 1
    assert str(newest) in two.problems[0]
    with pytest.raises(InputError) as refused:
        two.load(20)
    assert str(refused.value) == two.problems[0]
    DAMAGE["missing manifest"](two.folder / "step-000000010")
    assert two.latest() is None
    assert len(two.problems) == 2


def test_damaged_ones_do_not_count_among_those_kept(tmp_path: Path) -> None:
    made = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        made.save(step, tensors_of(step), None)
    DAMAGE["truncated tensors"](tmp_path / "step-000000003")
    made.save(4, tensors_of(4), None)
    assert made.steps == [2, 3, 4]
    made.save(5, tensors_of(5), None)
    assert made.steps == [4, 5]


def forge(path: Path, data: bytes | None = None, **changed: Any) -> None:
    """Alter a checkpoint as one who can make checksums does."""
    manifest = read_json(path / MANIFEST)
    if data is not None:
        (path / TENSORS).write_bytes(data)
        manifest["tensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_json(path / MANIFEST, {**manifest, **changed})


def test_a_newer_format_is_refused_and_not_passed_over(two: Checkpoints) -> None:
    forge(two.folder / "step-000000020", format=2, something="new")
    for ask in (two.latest, lambda: two.load(20)):
        with pytest.raises(
            InputError, match=r"step-000000020.manifest\.json: a newer version wrote this .* up to 1: 2"
        ):
            ask()
    assert two.load(10).step == 10


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["EVIL"],)


def evil_files(folder: Path) -> Iterator[bytes]:
    torch.save({"weight": Evil()}, folder / "pickle")
    yield (folder / "pickle").read_bytes()
    yield (2**40).to_bytes(8, "little") + b"{}" + bytes(100)
    yield (2**63).to_bytes(8, "little") + b"{}"
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    yield len(header).to_bytes(8, "little") + header
    header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}).encode()
    yield len(header).to_bytes(8, "little") + header + bytes(8)
    header = json.dumps({"x": {"dtype": "F9", "shape": [2], "data_offsets": [0, 8]}}).encode()
    yield len(header).to_bytes(8, "little") + header + bytes(8)
    yield b""


def test_files_made_to_do_harm_are_refused(two: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL", str(tmp_path / "done"))
    path = two.folder / "step-000000020"
    for data in evil_files(tmp_path):
        forge(path, data)
        with pytest.raises(InputError, match="no tensors can be read"):
            two.load(20)
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"aliases": {"other": "nothing"}},
        {"aliases": ["weight"]},
        {"aliases": None},
        {"tensors": {"bytes": 2**50, "sha256": "0"}},
        {"tensors": {"bytes": "4096"}},
        {"tensors": []},
        {"format": 0},
        {"format": True},
        {"format": "1"},
        {"step": 21},
        {"extra": 1},
    ],
)
def test_manifests_made_up_are_refused(two: Checkpoints, changed: dict[str, Any]) -> None:
    forge(two.folder / "step-000000020", **changed)
    with pytest.raises(InputError, match="step-000000020"):
        two.load(20)
    saved = two.latest()
    assert saved is not None
    assert saved.step == 10


def test_links_and_other_names_are_left_alone(two: Checkpoints, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("precious")
    for name in ("step-000000030", f".step-000000030.{'0' * 16}.tmp"):
        (two.folder / name).symlink_to(tmp_path / "precious")
    (two.folder / "step-x").mkdir()
    (two.folder / "notes.txt").write_text("mine")
    assert two.steps == [10, 20]
    Checkpoints(two.folder, keep=1).save(25, tensors_of(25), None)
    assert two.steps == [25]
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "precious"
    assert {"step-x", "notes.txt", "step-000000030"} <= set(listing(two.folder))


def cut_short(tensors: dict[str, Tensor], path: Path) -> None:
    path.write_bytes(b"half")
    die()


def half_removed(path: Path, **options: Any) -> None:
    (path / MANIFEST).unlink()
    die()


KILLS: dict[str, tuple[Any, str, Any, int]] = {
    "while tensors are written": (module, "save_file", cut_short, 20),
    "before the manifest": (module, "_write_manifest", die, 20),
    "before it gets its name": (os, "rename", die, 20),
    "before older ones are removed": (Checkpoints, "_remove_outdated", die, 30),
    "while one is removed": (shutil, "rmtree", half_removed, 30),
}


@pytest.mark.parametrize("when", KILLS)
def test_a_kill_leaves_the_old_one_or_the_new_one(two: Checkpoints, when: str) -> None:
    owner, name, instead, newest = KILLS[when]

    def killed() -> None:
        setattr(owner, name, instead)
        Checkpoints(two.folder, keep=2).save(30, tensors_of(30), {"step": 30})

    assert in_child(killed) == -signal.SIGKILL
    saved = Checkpoints(two.folder).latest()
    assert saved is not None
    assert (saved.step, saved.state) == (newest, {"step": newest})
    assert torch.equal(saved.tensors["weight"], tensors_of(newest)["weight"])
    Checkpoints(two.folder, keep=2).save(40, tensors_of(40), None)
    assert listing(two.folder) == [f"step-0000000{newest}", "step-000000040"]


@pytest.mark.parametrize("call", ["mkdir", "rename", "fsync", "write", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_fault_leaves_the_old_ones_and_names_path_and_reason(
    two: Checkpoints, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(InputError) as refused:
            two.save(30, tensors_of(30), None)
    assert str(refused.value).startswith(f"{two.folder}: ")
    assert os.strerror(code) in str(refused.value)
    assert listing(two.folder) == ["step-000000010", "step-000000020"]
    two.save(30, tensors_of(30), None)
    assert two.steps == [10, 20, 30]


def test_an_interrupt_leaves_nothing_beside(two: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise SystemExit(143)

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(SystemExit):
        two.save(30, tensors_of(30), None)
    assert listing(two.folder) == ["step-000000010", "step-000000020"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(path)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"mount does not run here: {error}")
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_disk_that_is_full_keeps_the_previous_one(small_disk: Path) -> None:
    made = Checkpoints(small_disk / "run")
    made.save(1, tensors_of(1, 50_000), {"step": 1})
    with pytest.raises(InputError) as refused:
        made.save(2, tensors_of(2, 110_000), {"step": 2})
    assert str(refused.value) == f"{small_disk / 'run'}: a checkpoint cannot be written (No space left on device)"
    assert listing(small_disk / "run") == ["step-000000001"]
    saved = made.latest()
    assert saved is not None
    assert saved.state == {"step": 1}
    made.save(3, tensors_of(3, 50_000), None)
    assert made.steps == [1, 3]
    made.close()


def test_a_limit_on_the_size_of_files_keeps_the_previous_one(two: Checkpoints) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        Checkpoints(two.folder).save(30, tensors_of(30, 50_000), None)

    assert in_child(limited) == 1
    assert listing(two.folder) == ["step-000000010", "step-000000020"]


def test_only_rank_0_writes(two: Checkpoints) -> None:
    other = Checkpoints(two.folder, rank=1)
    assert other.save(30, tensors_of(30), None) is None
    assert Checkpoints(two.folder / "new", rank=1).save(30, tensors_of(30), None) is None
    assert listing(two.folder) == ["step-000000010", "step-000000020"]
    assert other.load(20).step == 20


def test_a_second_process_may_not_write(two: Checkpoints) -> None:
    two.save(30, tensors_of(30), None)
    second = lambda: Checkpoints(two.folder).save(40, tensors_of(40), None)  # noqa: E731
    assert in_child(second) == 1
    assert two.steps == [10, 20, 30]
    assert in_child(lambda: Checkpoints(two.folder).load(30)) == 0
    two.close()
    assert in_child(second) == 0
    assert two.steps == [20, 30, 40]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file in place of a folder")
    with pytest.raises(InputError, match="file: a checkpoint cannot be written"):
        Checkpoints(tmp_path / "file").save(1, {}, None)
    with pytest.raises(InputError, match="a checkpoint cannot be written"):
        Checkpoints(tmp_path / "file" / "x").save(1, {}, None)
