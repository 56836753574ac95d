"""What a process needs that torchrun started beside others: its place, gradients averaged over all, one word for all.

Why not `DistributedDataParallel` around the supernet: it hooks into the parameters that autograd reaches in one forward
pass of one module, and reduces after each backward pass. Here autograd reaches slices of the bank that are leaves of
their own, so hooks on the bank's parameters never run (tried: the ranks' gradients stay different, with and without
`find_unused_parameters`, and no error says so); the networks change every step; and several add up their gradients
before one update. So a step runs all its networks, then averages the bank's gradients as that class does (flat buckets,
all-reduce), once. Nothing overlaps with the backward pass, but all networks together pay once.

Every rank draws the same networks and takes its mean loss over equally many rows: then the mean of the gradients is
that of the whole batch. `gloo` averages on CPUs, `nccl` on CUDA devices; nothing is pickled.

    torchrun --standalone --nproc-per-node 2 --max-restarts 3 -m nas.train ...

starts all ranks again when one dies; each goes on from the last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from nas.core.errors import InputError

BUCKET = 25_000_000  # bytes of gradients that travel together, as in DistributedDataParallel
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Group:
    """One of `world` processes; with a world of one every call returns what it was given.

    All ranks make the same calls in the same order. One that dies makes the others' next call fail; one that hangs,
    when the time limit is over. Use it as a context, which closes it.
    """

    rank: int
    world: int
    local_rank: int
    device: torch.device

    @classmethod
    def from_environment(cls, device: str = "cpu", minutes: float = 10.0) -> Group:
        """The group that torchrun's variables describe, joined; alone without them. `minutes` a call may wait.

        `cuda` becomes the device of the local rank; one with a number stays what it is and is for a process alone.
        """
        given = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        if "RANK" not in given and "WORLD_SIZE" not in given:
            return cls(0, 1, 0, _own_device(device, 0, 1))
        if missing := [name for name in VARIABLES if name not in given]:
            raise InputError("a process of a group has all of torchrun's variables: it lacks", ", ".join(missing))
        rank, world, local_rank = (_count(name, given[name]) for name in VARIABLES[:3])
        if not rank < world:
            raise InputError("a rank is less than WORLD_SIZE", value=f"RANK={rank}, WORLD_SIZE={world}")
        own = _own_device(device, local_rank, world)
        if world > 1:
            limit = timedelta(minutes=minutes)
            store = _store_of_this_start(next(rendezvous("env://", timeout=limit))[0], rank, world, limit)
            backend = "nccl" if own.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=limit)
        return cls(rank, world, local_rank, own)

    def mean_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its mean over the ranks, in place. Those without a gradient are left out.

        RuntimeError on every rank if they do not have gradients of the same parameters: they drew other networks.
        """
        if self.world == 1:
            return
        every = list(parameters)
        gradients = [parameter.grad for parameter in every if parameter.grad is not None]
        total = sum(gradient.numel() for gradient in gradients)
        self._same("gradients", bytes(p.grad is not None for p in every) + b"%d" % total)
        with torch.no_grad():
            flying = []
            for bucket in _buckets(gradients):
                flat = _flat(bucket).div_(self.world)  # before the sum: halves must not overflow
                flying.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
            for bucket, flat, work in flying:
                work.wait()
                _scatter(flat, bucket)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the values of rank 0, in place."""
        if self.world == 1:
            return
        own = [tensor.detach() for tensor in tensors]
        self._same("tensors", repr([(tuple(tensor.shape), tensor.dtype) for tensor in own]).encode())
        for bucket in _buckets(own):
            flat = _flat(bucket)
            dist.broadcast(flat, 0)
            _scatter(flat, bucket)

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean of each value over the ranks, the same on all; not a number if one's is not. As many on each."""
        if self.world == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(numbers)
        found: list[float] = (numbers / self.world).tolist()
        return found

    def any(self, flag: bool) -> bool:
        """Whether any rank says so: all stop after the same step."""
        if self.world == 1:
            return flag
        number = torch.tensor([int(flag)], device=self.device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return bool(number.item())

    def agree(self, value: Any) -> Any:
        """What rank 0 says, on every rank: any JSON value, such as the step of the checkpoint to go on from."""
        if self.world == 1:
            return value
        data = json.dumps(value).encode() if self.rank == 0 else b""
        size = torch.tensor([len(data)], device=self.device)
        dist.broadcast(size, 0)
        text = torch.empty(int(size.item()), dtype=torch.uint8, device=self.device)
        if self.rank == 0:
            text.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(text, 0)
        return json.loads(bytes(text.tolist()))

    def barrier(self) -> None:
        """Wait for all."""
        if self.world > 1:
            self.any(False)  # a barrier of its own needs the device named for nccl; this is one

    def close(self) -> None:
        """Leave the group."""
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _same(self, what: str, description: bytes) -> None:
        """RuntimeError on all ranks unless all have the same: one word travels, the least and the most of it."""
        word = int.from_bytes(hashlib.sha256(description).digest()[:7], "big")  # fits, also negative, into 64 bits
        both = torch.tensor([word, -word], device=self.device)
        dist.all_reduce(both, dist.ReduceOp.MAX)
        most, least = both.tolist()
        if most != -least:
            raise RuntimeError(
                f"the ranks do not have the same {what}: they must draw the same networks in the same order"
            )


def _store_of_this_start(store: Store, rank: int, world: int, limit: timedelta) -> Store:
    """A part of torchrun's store that only the processes of this start know: rank 0 chooses its name.

    torchrun (2.15) serves all starts from one store, and a process that is started again may read there where a dead
    one listened: four of six restarts on a busy machine failed or hung so, and none with this. The count of restarts
    cannot be the name, for machines count on their own (https://github.com/pytorch/pytorch/issues/135712). So each rank
    says hello with a word of its own, and takes the name only from an answer to that word.
    """
    own, until = secrets.token_hex(16), time.monotonic() + limit.total_seconds()
    missing = set(range(1, world)) if rank == 0 else {rank}
    name = own if rank == 0 else ""
    while missing:
        for other in tuple(missing):
            if rank == 0:
                store.set(f"nas/answer/{other}", _held(store, f"nas/hello/{other}") + own)
                met = _held(store, f"nas/met/{other}") == own
            else:
                store.set(f"nas/hello/{rank}", own)
                answer = _held(store, f"nas/answer/{rank}")
                met, name = answer.startswith(own), answer[len(own) :]
            if met:
                missing.discard(other)
        if missing and time.monotonic() > until:
            raise RuntimeError(f"rank {rank} did not meet {sorted(missing) if rank == 0 else 'rank 0'} in {limit}")
        time.sleep(0.02 if missing else 0)
    if rank != 0:
        store.set(f"nas/met/{rank}", name)
    return PrefixStore(name, store)


def _held(store: Store, key: str) -> str:
    return bytes(store.get(key)).decode() if store.check([key]) else ""


def _own_device(name: str, local_rank: int, world: int) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError("no such device: cpu, cuda, cuda:1", value=name) from None
    if device.type != "cuda":
        return device
    if device.index is not None and world > 1:
        raise InputError("in a group the local rank chooses the device: give cuda", value=name)
    index, devices = local_rank if device.index is None else device.index, torch.cuda.device_count()
    if index >= devices:
        raise InputError(f"the machine has no such CUDA device, of {devices}", value=f"cuda:{index}")
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


def _count(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InputError("a number that torchrun gives is 0 or more", value=text, place=name)
    return int(text)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in order, grouped by type; a group has at most BUCKET bytes, or one tensor."""
    open_: dict[torch.dtype, list[Tensor]] = {}
    sizes: dict[torch.dtype, int] = {}
    for tensor in tensors:
        kind, size = tensor.dtype, tensor.numel() * tensor.element_size()
        if sizes.get(kind, 0) + size > BUCKET and open_.get(kind):
            yield open_.pop(kind)
            sizes[kind] = 0
        open_.setdefault(kind, []).append(tensor)
        sizes[kind] = sizes.get(kind, 0) + size
    yield from open_.values()


def _flat(bucket: Sequence[Tensor]) -> Tensor:
    """One tensor with the values of all; the very memory of a large one that is alone."""
    if len(bucket) == 1 and bucket[0].is_contiguous():
        return bucket[0].view(-1)
    return torch.cat([tensor.reshape(-1) for tensor in bucket])


def _scatter(flat: Tensor, bucket: Sequence[Tensor]) -> None:
    """The reverse of `_flat`, into the tensors' own memory."""
    if len(bucket) == 1 and bucket[0].is_contiguous():
        return
    sizes = [math.prod(tensor.shape) for tensor in bucket]
    parts = [part.view(tensor.shape) for part, tensor in zip(flat.split(sizes), bucket, strict=True)]
    torch._foreach_copy_(list(bucket), parts)
