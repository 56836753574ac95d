"""Two real processes average gradients, agree and stop together; one that is killed is started again by torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import nn

import nas
from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.space import Space
from nas.model.spaces import shared_rules
from nas.model.supernet import Supernet
from nas.training import distributed
from nas.training.checkpoints import Checkpoints
from nas.training.distributed import VARIABLES, Group
from tests.forked import ranks

ROOT = str(Path(nas.__file__).parent.parent)


def told_by_one(folder: Path) -> None:
    """One of the two processes: what it is told is in a file named after its rank."""
    distributed.BUCKET = 600  # bytes, so that there are several and some tensors go alone
    told: dict[str, Any] = {}
    with Group.from_environment() as group:
        told["place"] = [group.rank, group.world, group.local_rank, str(group.device)]
        told |= of_parameters(group)
        told |= of_a_bank(group)
        tensors = [torch.full((3, 2), group.rank).T, torch.tensor(group.rank + 0.5), torch.ones(200) * group.rank]
        tensors.append(torch.ones(0))
        group.broadcast(tensors)
        told["broadcast"] = [t.flatten().tolist() for t in tensors]
        told["values"] = group.mean([1.0, 0.1 + group.rank, float("nan") if group.rank else 0.0])
        told["any"] = [group.any(False), group.any(group.rank == 1), group.any(True)]
        told["agree"] = [group.agree({"step": 3, "é": [None, 0.1]} if group.rank == 0 else "nothing"), group.agree("")]
        group.barrier()
    (folder / f"{group.rank}.json").write_text(json.dumps(told))


def of_parameters(group: Group) -> dict[str, Any]:
    """Gradients of parameters of several types, some without."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3)).double()
    half = nn.Parameter(torch.ones(5, dtype=torch.bfloat16))
    strided = nn.Parameter(torch.ones(4, 3).T)
    idle = nn.Parameter(torch.ones(3))
    parameters = [*model.parameters(), half, strided, idle]
    x = torch.randn(8, 6, dtype=torch.float64)
    model(x).square().mean().backward()
    told = {"whole": gradients(model.parameters())}
    model.zero_grad()
    model(x[4 * group.rank : 4 * group.rank + 4]).square().mean().backward()
    half.grad = torch.full((5,), 1.0 + 2 * group.rank, dtype=torch.bfloat16)
    strided.grad = torch.arange(12.0).view(4, 3).T * (group.rank + 1)
    memory = [p.grad.data_ptr() for p in parameters if p.grad is not None]
    group.mean_gradients(parameters)
    told["mean"] = gradients(parameters)
    in_place = memory == [p.grad.data_ptr() for p in parameters if p.grad is not None]
    idle.grad = torch.ones(3) if group.rank else None
    return {**told, "in_place": in_place, "other_sets": refused(lambda: group.mean_gradients([idle]))}


def of_a_bank(group: Group) -> dict[str, Any]:
    """Gradients of a supernet's bank: two networks before one average."""
    block = {"repeat": [1, 2], "mixer": "softmax(heads=[1, 2], head_dim=4)", "feedforward": "mlp(ratio=[1, 2])"}
    stage = {"embed": "patch(size=4)", "dim": [8, 16], "blocks": [block]}
    document = {"name": "small", "input": 8, "channels": 1, "classes": 3, "stages": [stage], "head": "mean"}
    space = Space.parse(document, shared_rules(), "small")
    torch.manual_seed(1)
    bank = Supernet(space).double()
    if group.rank:
        torch.nn.init.zeros_(next(bank.parameters()))
    group.broadcast(bank.state_dict().values())
    told: dict[str, Any] = {"bank": [p.flatten().tolist() for p in bank.parameters()]}
    networks = list(space.every())
    images, labels = torch.randn(8, 1, 8, 8, dtype=torch.float64), torch.arange(8) % 3
    mine = slice(4 * group.rank, 4 * group.rank + 4)

    def train(rows: slice, chosen: list[Architecture]) -> None:
        bank.zero_grad()
        for network in chosen:
            nn.functional.cross_entropy(bank.bind(network, train=True)(images[rows]), labels[rows]).backward()

    pair = [networks[0], networks[-1]]
    train(slice(None), pair)
    told["bank_whole"] = gradients(bank.parameters())
    train(mine, pair)
    group.mean_gradients(bank.parameters())
    told["bank_mean"] = gradients(bank.parameters())
    train(mine, [networks[0] if group.rank else networks[-1]])
    told["other_networks"] = refused(lambda: group.mean_gradients(bank.parameters()))
    told["other_shapes"] = refused(lambda: group.broadcast([torch.ones(2 + group.rank)]))
    return told


def gradients(parameters: Iterable[nn.Parameter]) -> list[Any]:
    return [None if p.grad is None else p.grad.flatten().tolist() for p in parameters]


def refused(call: Callable[[], Any]) -> str | None:
    try:
        call()
    except RuntimeError as error:
        return str(error)
    return None


def environment(**variables: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return {**own, "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1", **variables}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes told."""
    folder = tmp_path_factory.mktemp("pair")
    ranks(2, folder, told_by_one, folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


def test_processes_know_their_places(pair: list[dict[str, Any]]) -> None:
    assert [told["place"] for told in pair] == [[0, 2, 0, "cpu"], [1, 2, 1, "cpu"]]


def test_mean_gradients_are_those_of_the_whole_batch(pair: list[dict[str, Any]]) -> None:
    for told in pair:
        assert told["in_place"]
        *linear, half, strided, idle = told["mean"]
        assert len(linear) == len(told["whole"]) == 4
        for mean, whole in zip(linear, told["whole"], strict=True):
            torch.testing.assert_close(torch.tensor(mean), torch.tensor(whole), rtol=1e-6, atol=1e-8)
        assert half == [2.0] * 5
        assert strided == (1.5 * torch.arange(12.0).view(4, 3).T).flatten().tolist()
        assert idle is None
    assert pair[0]["mean"] == pair[1]["mean"]


def test_networks_of_a_supernet_add_up_before_one_mean(pair: list[dict[str, Any]]) -> None:
    first, second = pair
    assert first["bank"] == second["bank"]
    assert first["bank_mean"] == second["bank_mean"]
    assert first["bank_whole"] == second["bank_whole"]
    for mean, whole in zip(first["bank_mean"], first["bank_whole"], strict=True):
        assert (mean is None) == (whole is None)
        if mean is not None:
            torch.testing.assert_close(torch.tensor(mean), torch.tensor(whole), rtol=1e-6, atol=1e-8)
    assert any(value for gradient in first["bank_whole"] for value in gradient or [])


def test_ranks_that_drew_other_networks_are_all_told(pair: list[dict[str, Any]]) -> None:
    for told in pair:
        for case in ("other_networks", "other_sets"):
            assert "do not have the same gradients" in (told[case] or ""), case
        assert "do not have the same tensors" in told["other_shapes"]


def test_all_have_the_values_of_rank_0_and_one_word(pair: list[dict[str, Any]]) -> None:
    for told in pair:
        assert told["broadcast"] == [[0] * 6, [0.5], [0.0] * 200, []]
        assert told["values"][:2] == [1.0, (0.1 + 1.1) / 2]
        assert told["values"][2] != told["values"][2]
        assert told["any"] == [False, True, True]
        assert told["agree"] == [{"step": 3, "é": [None, 0.1]}, ""]


def test_a_process_alone_needs_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 3.0])
    with Group.from_environment() as group:
        assert (group.rank, group.world, group.device) == (0, 1, torch.device("cpu"))
        group.mean_gradients([parameter])
        group.broadcast([parameter])
        group.barrier()
        assert group.mean([1.5]) == [1.5]
        assert group.agree({"step": 1}) == {"step": 1}
        assert [group.any(True), group.any(False)] == [True, False]
    assert parameter.grad.tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"RANK": "0"}, "it lacks: 'WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT'"),
        ({**dict.fromkeys(VARIABLES, "1"), "RANK": "-1"}, "RANK: a number that torchrun gives is 0 or more: '-1'"),
        ({**dict.fromkeys(VARIABLES, "1"), "WORLD_SIZE": "two"}, "WORLD_SIZE: a number"),
        ({**dict.fromkeys(VARIABLES, "1"), "RANK": "2", "WORLD_SIZE": "2"}, "a rank is less than WORLD_SIZE"),
        ({**dict.fromkeys(VARIABLES, "1"), "WORLD_SIZE": "0"}, "a rank is less than WORLD_SIZE"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=reason):
        Group.from_environment()


def test_devices_that_are_not_there_are_refused() -> None:
    with pytest.raises(InputError, match="no such device"):
        Group.from_environment("tpu9")
    with pytest.raises(InputError, match=r"the machine has no such CUDA device, of \d+: 'cuda:99'"):
        Group.from_environment("cuda:99")


def stores_of_a_start(store: Any, order: list[int]) -> list[Any]:
    """What the processes that arrive in this order take as the store of their start."""
    limit = timedelta(seconds=30)
    with ThreadPoolExecutor(len(order)) as threads:
        made = []
        for rank in order:
            made.append(threads.submit(distributed._store_of_this_start, store, rank, len(order), limit))
            time.sleep(0.05)
        return [future.result() for future in made]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_each_start_has_a_store_of_its_own_whatever_dead_processes_left(order: list[int]) -> None:
    store = dist.HashStore()
    for key in ("hello/1", "answer/1", "met/1", "met/2"):
        store.set(f"nas/{key}", bytes(32))
    store.set("nas/hello/2", bytes(16))
    for number in range(3):
        stores = stores_of_a_start(store, order)
        assert not any(own.check(["key"]) for own in stores)
        stores[0].set("key", f"start {number}")
        assert all(bytes(own.get("key")).decode() == f"start {number}" for own in stores)


@pytest.mark.parametrize(("rank", "missing"), [(0, r"\[1\]"), (1, "rank 0")])
def test_a_start_without_the_others_ends(rank: int, missing: str) -> None:
    with pytest.raises(RuntimeError, match=f"rank {rank} did not meet {missing} in 0:00:00.1"):
        distributed._store_of_this_start(dist.HashStore(), rank, 2, timedelta(seconds=0.1))


ELASTIC = """
import os, signal, sys
from pathlib import Path
import torch
from nas.training.checkpoints import Checkpoints
from nas.training.distributed import Group

folder = Path(sys.argv[1])
with Group.from_environment() as group:
    weight = torch.nn.Parameter(torch.ones(4))
    checkpoints = Checkpoints(folder / "checkpoints", keep=2, rank=group.rank)
    saved = checkpoints.latest() if group.rank == 0 else None
    first = group.agree(0 if saved is None else saved.step)
    if saved is not None:
        weight.data.copy_(saved.tensors["weight"])
    group.broadcast([weight])
    with open(folder / f"first-{group.rank}", "a") as file:
        file.write(f"{first}\\n")
    for step in range(first, 8):
        if step == 5 and group.rank == 1 and first == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        batch = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
        rows = batch[3 * group.rank : 3 * group.rank + 3]
        weight.grad = None
        (rows @ weight).square().mean().backward()
        group.mean_gradients([weight])
        weight.data -= 0.1 * weight.grad
        if step % 2 == 1:
            checkpoints.save(step + 1, {"weight": weight}, None)
"""


def undisturbed() -> torch.Tensor:
    """The same training with both halves in one process."""
    weight = nn.Parameter(torch.ones(4))
    for step in range(8):
        batch = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
        parts = [torch.autograd.grad((rows @ weight).square().mean(), weight)[0] / 2 for rows in batch.split(3)]
        weight.data -= 0.1 * (parts[0] + parts[1])
    return weight.detach()


def test_torchrun_starts_all_again_when_one_is_killed_and_the_result_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(ELASTIC)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "--max-restarts", "1", "--monitor-interval", "0.2", "train.py", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        assert (tmp_path / f"first-{rank}").read_text().split() == ["0", "4"]
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    saved = checkpoints.latest()
    assert saved is not None
    assert (saved.step, checkpoints.problems, checkpoints.steps) == (8, [], [6, 8])
    assert torch.equal(saved.tensors["weight"], undisturbed())
