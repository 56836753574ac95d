"""Targets: a device, the runtime that the network runs in there, and how. `cpu:openvino:threads=1,batch=16`.

A request is what a person wrote, a target has everything filled in:

    cpu   gpu   cuda:1   cpu:openvino   gpu:compile   cpu:threads=1   cpu:eager,threads=2,channels_last
    cpu:openvino:threads=1,batch=16,precision=bf16

After the device, parts are separated by `:` or `,` in any order. A bare word is a runtime or one of the flags
channels_last and graph; the rest is key=value with the keys precision, threads and batch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from nas.core.errors import InputError, nearest
from nas.core.runs import usable_cores
from nas.latency.runtimes import missing, runtime, runtimes

PRECISIONS = ("fp32", "bf16", "fp16")
FLAGS = ("channels_last", "graph")
LIMITS = {"threads": (1, 1024), "batch": (1, 4096)}
DEVICES = ("cpu", "gpu", "cuda:0")
KEYS = ("precision", *LIMITS)
MAX_LENGTH = 200  # characters of a request
# On a processor the ranks in the runtimes decide, measured at batch 1, one thread: DeiT-Ti took 46 ms in OpenVINO, 57
# in ONNX Runtime and 91 in eager torch, and none of seven other networks reversed the order. On a GPU nothing has been
# compared yet, and what is installed for a processor may lack CUDA; compiled torch comes with torch itself.
GPU_ORDER = ("compile",)
_HEAD = re.compile(r"(cpu|gpu|cuda(?::[0-9]{1,3})?)\s*([:,]|\Z)")
_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Target:
    """Everything that a latency depends on beside the network and the machine.

    device     "cpu" or "cuda:0"
    runtime    a file in nas/latency/runtimes
    precision  fp32, bf16 or fp16 (autocast in torch, the runtime's own setting elsewhere)
    threads    of a processor; 0 on a GPU
    batch      images a call
    channels_last, graph  memory format of the image and weights; CUDA graphs
    """

    device: str = "cpu"
    runtime: str = "eager"
    precision: str = "fp32"
    threads: int = 1
    batch: int = 1
    channels_last: bool = False
    graph: bool = False

    @property
    def kind(self) -> str:
        """cpu or gpu."""
        return kind_of(self.device)

    def __str__(self) -> str:
        """The text that `parse_target` and `exact_target` read back as this target."""
        options = [f"precision={self.precision}", f"batch={self.batch}"]
        if self.kind == "cpu":
            options.append(f"threads={self.threads}")
        options += [name for name in FLAGS if getattr(self, name)]
        return f"{self.device}:{self.runtime}:{','.join(options)}"


@dataclass(frozen=True)
class Request:
    """What a person wrote, checked; None where nothing was said. The device may be `gpu`: whichever is here."""

    device: str
    runtime: str | None = None
    precision: str | None = None
    threads: int | None = None
    batch: int | None = None
    channels_last: bool = False
    graph: bool = False

    @property
    def kind(self) -> str:
        """cpu or gpu."""
        return kind_of(self.device)

    def __str__(self) -> str:
        """The text that `parse_target` reads back as this request."""
        options = [f"{name}={getattr(self, name)}" for name in KEYS if getattr(self, name) is not None]
        options += [name for name in FLAGS if getattr(self, name)]
        return ":".join(part for part in (self.device, self.runtime, ",".join(options)) if part)


@dataclass(frozen=True)
class Resolved:
    """A target with everything filled in, whether its device is in this machine, and what to tell the person."""

    target: Target
    present: bool
    notices: tuple[str, ...]
    request: Request


def kind_of(device: str) -> str:
    """cpu or gpu."""
    return "cpu" if device == "cpu" else "gpu"


def parse_target(text: str) -> Request:
    """The request of a text. InputError for anything that is not one, with the rule, the value and the nearest names.

    Says what is legal, not what is here: the device may be absent and the runtime not installed.
    """
    if len(text) > MAX_LENGTH:
        raise InputError(f"a target has at most {MAX_LENGTH} characters", value=text)
    text = text.strip().lower()
    head = _HEAD.match(text)
    if head is None:
        word = re.split("[:,]", text)[0].strip()
        raise InputError("unknown device", value=word or text, nearest=nearest(word, DEVICES))
    given: dict[str, str | int | bool] = {"device": _device(head[1])}
    words = [word.strip() for word in re.split("[:,]", text[head.end() :])] if head[2] else []
    for word in words:
        key, value = _option(word)
        if key in given:
            raise InputError(f"a target says its {key} once", value=text)
        given[key] = value
    request = Request(**given)  # type: ignore[arg-type]
    _check(request)
    return request


def exact_target(text: str) -> Target:
    """The target of a text that leaves nothing open, as `str(target)` writes it (in files); InputError otherwise."""
    request = parse_target(text)
    needed = ["runtime", "precision", "batch", *(["threads"] if request.kind == "cpu" else [])]
    left = [name for name in needed if getattr(request, name) is None]
    if left or request.device == "gpu":
        raise InputError(f"an exact target says its {', '.join(left) or 'device by number'}", value=text)
    values = {field.name: getattr(request, field.name) for field in fields(Request)}
    return Target(**{**values, "threads": request.threads or 0})


def resolve(text: str) -> Resolved:
    """Fill in what was not said: one thread, one image, the fastest runtime installed, the runtime's own precision.

    `gpu` is the first that torch sees; `present` is false where there is none (a GPU can be asked for by its table or
    data sheet). InputError for a named runtime that is not installed, when its device is here to run it.
    """
    request = parse_target(text)
    notices: list[str] = []
    device = "cuda:0" if request.device == "gpu" else request.device
    present = device == "cpu" or int(device.partition(":")[2]) < gpu_count()
    if not present:
        notices.append(f"no device {request.device} is here")
    name = request.runtime
    if name is None:
        name = _fastest(request, notices)
    elif present and missing(name):
        raise InputError("the runtime is not installed", value=f"{name} (pip install {' '.join(missing(name))})")
    target = _filled(request, name)
    if request.precision is None and target.precision != "fp32":
        notices.append(f"precision: {target.precision}, the default of {name} (another: precision=fp32)")
    if target.threads > (usable_cores() or target.threads):
        notices.append(f"threads: {target.threads} are more than the {usable_cores()} cores that this process may use")
    return Resolved(target, present, tuple(notices), request)


def told_target(text: str) -> Target:
    """The target of a device that is not here: the runtime is named, and need not be installed."""
    request = parse_target(text)
    if request.runtime is None:
        raise InputError("times of another device need the runtime they were measured in: cpu:openvino", value=text)
    return _filled(request, request.runtime)


def _filled(request: Request, name: str) -> Target:
    """One thread, one image, the runtime's own precision, the first GPU, where nothing was said."""
    device = "cuda:0" if request.device == "gpu" else request.device
    precision = request.precision or runtime(name).PRECISIONS[0]
    threads = 0 if request.kind == "gpu" else request.threads or 1
    return Target(device, name, precision, threads, request.batch or 1, request.channels_last, request.graph)


def gpu_count() -> int:
    """The GPUs that torch can use here."""
    import torch  # takes seconds

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _fastest(request: Request, notices: list[str]) -> str:
    """The first runtime of the order of this kind of device that is installed, else eager; says which and why."""
    known = runtimes()
    ranked = sorted((name for name in known if known[name].deployment), key=lambda name: -known[name].deployment)
    order = [
        name
        for name in (ranked if request.kind == "cpu" else GPU_ORDER)
        if request.kind in known[name].KINDS and request.precision in (None, *known[name].PRECISIONS)
    ]
    here = [name for name in order if not missing(name)]
    taken = here[0] if here else "eager"
    faster = [
        f"{name} (pip install {' '.join(missing(name))})"
        for name in order[: order.index(taken) if here else len(order)]
    ]
    if request.kind == "gpu":
        reason = "the default of a gpu" if here else "since none made for deployment is installed"
    else:
        reason = "the fastest deployment runtime installed here" if here else "since no deployment runtime is installed"
    notices.append(f"runtime: {taken}, {reason}{'; faster: ' if faster else ''}{', '.join(faster)}")
    return taken


def _device(word: str) -> str:
    """`cuda` is `cuda:0`, and numbers have no leading zeros."""
    name, _, number = word.partition(":")
    return f"cuda:{int(number or 0)}" if name == "cuda" else name


def _option(word: str) -> tuple[str, str | int | bool]:
    """Field and value of one part of a request."""
    name, given, value = (part.strip() for part in word.partition("="))
    if not given:
        if name in FLAGS:
            return name, True
        if name in runtimes():
            return "runtime", name
        if name in PRECISIONS:
            near: tuple[str, ...] = (f"precision={name}",)
        elif _NUMBER.fullmatch(name):
            near = (f"cuda:{name}", f"threads={name}", f"batch={name}")
        else:
            near = nearest(name, [*runtimes(), *FLAGS])
        raise InputError("a word after the device is a runtime, channels_last or graph", value=name, nearest=near)
    if name in FLAGS:
        raise InputError(f"{name} is written alone, without a value", value=word)
    if name not in KEYS:
        raise InputError("unknown key of a target", value=name, nearest=nearest(name, KEYS))
    if name == "precision":
        if value not in PRECISIONS:
            raise InputError("unknown precision", value=value, nearest=nearest(value, PRECISIONS))
        return name, value
    low, high = LIMITS[name]
    if not _NUMBER.fullmatch(value) or not low <= int(value) <= high:
        raise InputError(f"{name} is a whole number from {low} to {high}", value=value)
    return name, int(value)


def _check(request: Request) -> None:
    """What does not go together."""
    kind = request.kind
    if kind == "gpu" and request.threads is not None:
        raise InputError("threads are of a cpu, a gpu has none to choose", value=str(request))
    if kind == "cpu" and request.graph:
        raise InputError("graph (CUDA graphs) is of a gpu", value=str(request))
    if request.runtime is None:
        return
    module = runtime(request.runtime)
    if kind not in module.KINDS:
        names = [name for name, other in runtimes().items() if kind in other.KINDS]
        raise InputError(
            f"the runtime does not run on a {kind}", value=request.runtime, nearest=nearest(request.runtime, names)
        )
    if request.precision not in (None, *module.PRECISIONS):
        offered = nearest(request.precision, module.PRECISIONS)
        raise InputError(f"{request.runtime} does not offer the precision", value=request.precision, nearest=offered)
