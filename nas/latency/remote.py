"""Measuring on a device that cannot run Python: a folder that a vendor's own runner works through, over ssh or by hand.

`bundle` writes the folder: the exported networks, manifest.json (checksummed), and measure.sh, which needs a POSIX
shell, awk and the runner. It measures every network in turn, round after round, the clock's reference first, appends
to results.csv, and continues where it stopped. `remote` copies the folder, runs the script and fetches the results;
`vendor.import_times` reads them. See docs/remote.md.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nas.core.errors import InputError
from nas.core.runs import write_json, write_whole
from nas.latency.device import Device
from nas.latency.row import tidy
from nas.latency.runners import LIST, RESULTS, SCRIPT, runner_of, script
from nas.latency.runtimes import Unsupported, missing
from nas.latency.runtimes._refusal import refusing
from nas.latency.table import Table
from nas.latency.target import Target
from nas.latency.vendor import MANIFEST, MAX_BYTES, import_times, read_document, read_manifest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nas.core.architecture import Architecture

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=30")
COPY_SECONDS = 3600.0
_HOST = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]{0,63}@)?[A-Za-z0-9_]([A-Za-z0-9._:-]{0,252}[A-Za-z0-9])?")
Export = Callable[["Architecture", Path, Target], None]


def bundle(
    architectures: Iterable[Architecture],
    folder: Path,
    target: Target,
    versions: Mapping[str, str] = {},
    seconds: int = 5,
    rounds: int = 3,
    export: Export | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the folder that a device without Python measures; returns its manifest. The clock's reference is in it.

    The runner is that of the target's runtime. `versions` are of the runner on the device, if known: they go into the
    table. `export(architecture, file, target)` writes a network in the runner's format; without it, ONNX is written,
    and a program of ExecuTorch for its runner. A network that cannot be exported fails in the table as well. A folder
    that holds another bundle is refused, and the same is completed.
    """
    from nas.latency.subject import REFERENCE

    runner = runner_of(target)
    if export is None and runner.suffix == ".pte" and (absent := missing(target.runtime)):
        raise InputError("programs of ExecuTorch are written by its package", value=f"pip install {' '.join(absent)}")
    if not (1 <= seconds <= 3600 and 1 <= rounds <= 100):
        raise InputError("a bundle has 1 to 100 rounds of 1 to 3600 seconds", value=(rounds, seconds))
    reference = read_document(REFERENCE, "the reference")
    networks = {network.digest: network for network in (reference, *architectures)}
    entries: list[dict[str, Any]] = [
        {"digest": digest, "file": f"networks/{digest}{runner.suffix}", "architecture": network.to_dict(), "failed": ""}
        for digest, network in networks.items()
    ]
    manifest = {
        "format": 1,
        "target": asdict(target),
        "runner": runner.program,
        "seconds": seconds,
        "rounds": rounds,
        "reference": reference.digest,
        "versions": dict(versions),
        "networks": entries,
    }
    path = folder / MANIFEST
    if path.exists():
        before = read_manifest(path)
        if manifest != before | {"networks": [{**network, "failed": ""} for network in before["networks"]]}:
            raise InputError("the folder holds another bundle", place=str(folder))
    try:
        (folder / "networks").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder cannot be made ({error.strerror})", place=str(folder)) from None
    write_json(path, manifest)
    for number, entry in enumerate(entries, 1):
        file = folder / entry["file"]
        if not file.exists():
            say(f"exporting network {number} of {len(entries)}")
            entry["failed"] = _exported(export or _write, networks[entry["digest"]], file, target)
    there = [entry["digest"] for entry in entries if not entry["failed"]]
    write_whole(folder / LIST, "\n".join(there) + "\n")
    write_whole(folder / SCRIPT, script(target, seconds, rounds, len(there)))
    write_json(path, manifest)
    return path


def _exported(export: Export, architecture: Architecture, file: Path, target: Target) -> str:
    """Write the network; nothing, or why it cannot be: a network that a format does not hold is a result."""
    try:
        with refusing("export"):
            export(architecture, file, target)
    except Unsupported as refusal:
        if isinstance(refusal.__cause__, InputError):  # a full disk, a format that is not written here
            raise refusal.__cause__ from None
        return str(refusal)
    return ""


def _write(architecture: Architecture, file: Path, target: Target) -> None:
    """Write the network as it is deployed: extracted, fused, in eval mode, for the target's batch."""
    import torch

    from nas.latency.subject import of_network
    from nas.model.program import onnx_model

    torch.manual_seed(0)
    form = {".onnx": onnx_model, ".pte": _executorch}[file.suffix]
    write_whole(file, form(*of_network(architecture, target.batch)))


def _executorch(module: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    from nas.latency.runtimes.executorch import lowered
    from nas.model.program import exported, quiet

    with quiet():
        return lowered(exported(module, inputs))


def remote(
    host: str,
    folder: Path,
    ssh: Sequence[str] = SSH,
    runner: str = "",
    seconds: float | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Copy a bundle to `[user@]host`, measure there, fetch the results; returns their file beside the manifest.

    ssh      the command with its options (`-p 2222`, `-i key`); it must need no password
    runner   where the runner is on the device, if not on its PATH
    seconds  the longest that measuring may take; without, ten times what the bundle should need
    say      is called with each line of progress

    Broken off here or there, call it again: what was measured is kept on the device, in ~/nas_latency/<checksum>.
    """
    if not _HOST.fullmatch(host):
        raise InputError("a host is [user@]name, of letters, digits, dots, colons and hyphens", value=host)
    if any(not character.isprintable() for character in runner):
        raise InputError("the path of the runner is printable", value=runner)
    manifest = read_manifest(folder / MANIFEST)
    files = [MANIFEST, SCRIPT, LIST, *(held["file"] for held in manifest["networks"] if not held["failed"])]
    there = f"nas_latency/{hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:16]}"
    connection = [*ssh, "--", host]
    _upload([*connection, f"mkdir -p {there} && cd {there} && tar -xf -"], folder, files)
    prefix = f"RUNNER={shlex.quote(runner)} " if runner else ""
    calls = len(manifest["networks"]) * manifest["rounds"]
    limit = 10 * (calls * (manifest["seconds"] + 10) + 60) if seconds is None else seconds
    _follow([*connection, f"{prefix}sh {there}/{SCRIPT}"], limit, say)
    fetch = f"head -c {MAX_BYTES} {there}/{RESULTS}"
    with _connected([*connection, fetch], COPY_SECONDS, "fetching the results") as (_, answered):
        results = answered.read(MAX_BYTES)
    write_whole(folder / RESULTS, results)
    return folder / RESULTS


def import_bundle(folder: Path, device: Device, command: str = "") -> Table:
    """The table of a bundle's results, where they lie beside its manifest: of its target and versions."""
    manifest = read_manifest(folder / MANIFEST)
    return import_times(folder / RESULTS, device, Target(**manifest["target"]), manifest["versions"], command)


def _upload(command: Sequence[str], folder: Path, files: Sequence[str]) -> None:
    """The files as one archive, as it goes: only ssh, a shell and tar are needed there."""
    with (
        _connected(command, COPY_SECONDS, "copying the bundle") as (given, _),
        tarfile.open(fileobj=given, mode="w|") as archive,
    ):
        for file in files:
            archive.add(folder / file, arcname=file, recursive=False, filter=_without_owner)


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _follow(command: Sequence[str], seconds: float, say: Callable[[str], None]) -> None:
    with _connected(command, seconds, "measuring") as (given, answered):
        given.close()
        for line in answered:
            say(tidy(line.decode(errors="replace")))


@contextmanager
def _connected(command: Sequence[str], seconds: float, what: str) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The pipes to and from a process, which is ended after so many seconds. InputError with its words if it fails."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
        except OSError as error:
            raise InputError(f"{command[0]} cannot be started ({error.strerror})") from None
        assert process.stdin is not None and process.stdout is not None
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            yield process.stdin, process.stdout
            process.stdin.close()
            process.wait()
        except BrokenPipeError:  # the other side ended first: its code and its words say why
            process.wait()
        finally:
            in_time = timer.is_alive()
            timer.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
        said.seek(0)
        words = tidy(said.read(MAX_BYTES).decode(errors="replace")[-1000:])
    if not in_time:
        raise InputError(f"{what} took longer than {seconds:g} s: call it again to continue")
    if process.returncode:
        raise InputError(f"{what} ended with code {process.returncode}", value=words)
