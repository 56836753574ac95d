"""Times of other tools: CSV import with file and line, bundles, and a real ssh server on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.core.architecture import Architecture
from nas.core.errors import InputError
from nas.core.runs import write_json
from nas.core.yamlfile import dump_yaml
from nas.latency.header import NO_REFERENCE
from nas.latency.remote import SSH, bundle, import_bundle, remote
from nas.latency.runners import RUNNERS, script
from nas.latency.runtimes import missing
from nas.latency.table import read_table
from nas.latency.target import Target
from nas.latency.vendor import MANIFEST, import_times, named_device, read_document, read_manifest, reference_name

DEVICE = named_device("Raspberry Pi 5")
TARGET = Target(runtime="onnxruntime")


def network(dim: int = 32) -> Architecture:
    """One block on 4 x 4 tokens."""
    block = {"mixer": "softmax(heads=2, head_dim=16)", "feedforward": "mlp(ratio=2)"}
    stage = {"embed": "patch(size=8)", "dim": dim, "position": "learned", "blocks": [block]}
    document = {"input": 32, "channels": 3, "classes": 10, "stages": [stage], "head": "mean"}
    return read_document(document, "a test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two architectures in files."""
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "a.yaml").write_text(dump_yaml(network(32).to_dict()))
    (tmp_path / "b.json").write_text(str(network(64).to_dict()).replace("'", '"').replace("True", "true"))
    return tmp_path


def times(folder: Path, text: str, target: Target = TARGET) -> Any:
    (folder / "times.csv").write_text(text)
    return import_times(folder / "times.csv", DEVICE, target)


def test_a_csv_becomes_networks_of_a_table(folder: Path) -> None:
    table = times(folder, "architecture,ms,batch,spread_ms\nnets/a.yaml,4.31234,1,0.1\nb.json,17.9,1,0\n\n")
    assert table.header.device == DEVICE and table.header.device.key == "raspberry-pi-5"
    assert table.header.reference == NO_REFERENCE and table.header.target == TARGET
    one, two = table.get("network", network(32).digest), table.get("network", network(64).digest)
    assert len(table.rows) == 2 and one is not None and two is not None
    assert (table.ms(one), one.low, one.high) == (4.3123, 4.2123, 4.4123)
    assert one.document == network(32).to_dict() and one.note == "imported"
    assert table.ms(two) == 17.9
    table.write(folder / "table.csv")
    assert read_table(folder / "table.csv") == table


@pytest.mark.parametrize("start", ["\ufeff", ""])
def test_a_csv_as_a_spreadsheet_writes_it(folder: Path, start: str) -> None:
    table = times(folder, f'{start}ms,architecture\r\n"4.5"," nets/a.yaml"\r\n')
    assert [table.ms(row) for row in table.networks()] == [4.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"times.csv:1: the first line names the columns"),
        ("architecture,ms\n", r"times.csv: there is no time"),
        ("architecture,time\nnets/a.yaml,1\n", r"times.csv:1: unknown column.*time"),
        ("architecture,ms,ms\nnets/a.yaml,1,1\n", r"times.csv:1: the first line"),
        ("architecture,batch\nnets/a.yaml,1\n", r"times.csv:1: the first line"),
        ("architecture,ms\nnets/a.yaml\n", r"times.csv:2: a line has 2 columns"),
        ("architecture,ms\nnets/a.yaml,0\n", r"times.csv:2: numbers are finite and positive"),
        ("architecture,ms\nnets/a.yaml,-1\n", r"times.csv:2: numbers are"),
        ("architecture,ms\nnets/a.yaml,nan\n", r"times.csv:2: numbers are"),
        ("architecture,ms\nnets/a.yaml,1e999\n", r"times.csv:2: numbers are"),
        ("architecture,ms\nnets/a.yaml,fast\n", r"times.csv:2: numbers are"),
        ("architecture,ms\nnets/a.yaml,\n", r"times.csv:2: numbers are"),
        (
            "architecture,ms\nnets/a.yaml,1\n\nnets/a.yaml,2\n",
            r"times.csv:4: .*one time a round \(before: .*times.csv:2\)",
        ),
        ("architecture,ms\nnets/c.yaml,1\n", r"times.csv:2: .*c.yaml: no such file.*nearest: a.yaml"),
        ("architecture,ms\n" + "0" * 64 + ",1\n", r"times.csv:2: an architecture is a file"),
        ("architecture,ms,batch\nnets/a.yaml,1,16\n", r"times.csv:2: the times are of batch 1"),
        ("architecture,ms,precision\nnets/a.yaml,1,int8\n", r"times.csv:2: the times are of precision fp32"),
        ("architecture,ms,spread_ms\nnets/a.yaml,1,1\n", r"times.csv:2: a spread is smaller"),
        ('architecture,ms\n"nets/a.yaml,1\n', r"times.csv:2: a line is one row of CSV"),
    ],
)
def test_a_csv_that_is_wrong_is_refused_with_its_line(folder: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        times(folder, text)


def test_other_files_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        import_times(folder / "none.csv", DEVICE, TARGET)
    (folder / "times.csv").write_bytes(b"architecture,ms\n\xff,1\n")
    with pytest.raises(InputError, match="UTF-8"):
        import_times(folder / "times.csv", DEVICE, TARGET)
    (folder / "times.csv").write_bytes(b"architecture,ms\n\0,1\n")
    with pytest.raises(InputError, match="zero byte"):
        import_times(folder / "times.csv", DEVICE, TARGET)


# bundles


def marked(architecture: Architecture, file: Path, target: Target) -> None:
    """An export that takes no time: the runners of these tests read the width only."""
    file.write_text(str(architecture.stages[0].dim))


def runner(folder: Path, body: str) -> Path:
    """A program that stands for a vendor's, a shell script."""
    path = folder / "a runner"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def measure(folder: Path, program: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RUNNER": str(program)}
    return subprocess.run(["sh", str(folder / "measure.sh")], env=environment, capture_output=True, text=True)


# What each program prints, in the words of its source; the time is the width in units of 0.1 ms.
FAKES = {
    "openvino": 'while [ "$1" != -m ]; do shift; done\n'
    'echo "[ INFO ] Count:            90 iterations"\necho "[ INFO ]    Median:        $(cat "$2")00.00 us"\n'
    'echo "[ INFO ]    Average:       99.00 us"',
    "onnxruntime": 'for last; do :; done\necho "Min Latency is 0.001 sec"\n'
    'echo "P50 Latency is $(awk \'{ print $1 / 10000 }\' "$last") sec"\necho "P90 Latency is 9 sec"',
    "executorch": "file=${1#--model_path=}\n"
    'echo "I 00:00:00.1 runner.cpp:9] Model executed successfully 100 time(s) in $(cat "$file")0.000000 ms."',
}


@pytest.mark.parametrize("runtime", RUNNERS)
def test_the_script_reads_what_the_runner_prints(tmp_path: Path, runtime: str) -> None:
    folder = tmp_path / "a bundle"
    bundle([network(32), network(64)], folder, Target(runtime=runtime), seconds=1, rounds=3, export=marked)
    done = measure(folder, runner(tmp_path, FAKES[runtime]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "round 3 of 3, network 3 of 3"
    table = import_bundle(folder, DEVICE)
    assert table.header.reference == reference_name() and table.header.reference_ms == 19.2
    assert table.header.target == Target(runtime=runtime)
    row = table.get("network", network(64).digest)
    assert row is not None and row.pairs == 3 and table.ms(row) == pytest.approx(6.4, rel=1e-4)
    assert row.note == f"imported; {RUNNERS[runtime].program}: {RUNNERS[runtime].statistic}"


def test_ratios_refer_to_the_reference_of_their_round(tmp_path: Path) -> None:
    bundle([network()], tmp_path, TARGET, seconds=1, rounds=3, export=marked)
    reference, one = read_manifest(tmp_path / MANIFEST)["reference"], network().digest
    lines = ["architecture,round,ms,note"]
    for number, slow in enumerate((1.0, 2.0, 1.1), 1):  # the second round ran at half the speed
        lines += [f"{reference},{number},{10 * slow},", f"{one},{number},{5 * slow},"]
    (tmp_path / "results.csv").write_text("\n".join(lines) + "\n")
    row = import_bundle(tmp_path, DEVICE).get("network", one)
    assert row is not None and (row.low, row.ratio, row.high) == (0.5, 0.5, 0.5)


def test_what_fails_is_a_row_and_measuring_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    bundle([network(32), network(64), network(96)], folder, TARGET, seconds=1, rounds=2, export=marked)
    calls = tmp_path / "calls"
    body = (
        f'for last; do :; done\necho "$last" >> {calls}\ngrep -q 64 "$last" && exit 3\ngrep -q 96 "$last" && exit 0\n'
    )
    program = runner(tmp_path, body + FAKES["onnxruntime"])
    assert measure(folder, program).returncode == 0
    assert len(calls.read_text().splitlines()) == 8
    table = import_bundle(folder, DEVICE)
    notes = {row.document["stages"][0]["dim"]: row.failed_because for row in table.networks()}
    assert notes == {192: "", 32: "", 64: "the runner ended with code 3", 96: "no time in what the runner said"}

    results = folder / "results.csv"
    whole = results.read_text()
    results.write_text(whole[: len(whole) // 2])  # killed in the middle of a line
    assert measure(folder, program).returncode == 0
    assert sorted(results.read_text().splitlines()) == sorted(whole.splitlines())
    assert 8 < len(calls.read_text().splitlines()) < 16


@pytest.mark.parametrize("runtime", RUNNERS)
def test_the_documented_commands_are_those_of_the_script(runtime: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "remote.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith(f"| `{runtime}` |"))
    program, _, arguments = row.split("`")[3].partition(" ")
    assert program == RUNNERS[runtime].program and f"| {RUNNERS[runtime].statistic} |" in row
    assert f'"$runner" {arguments} > "$log"' in script(Target(runtime=runtime), 5, 3, 1)


def test_a_missing_runner_is_said(tmp_path: Path) -> None:
    bundle([network()], tmp_path, TARGET, export=marked)
    done = measure(tmp_path, tmp_path / "none")
    assert done.returncode == 127 and "install onnxruntime_perf_test" in done.stderr


def test_a_network_that_cannot_be_exported_fails_in_the_table(tmp_path: Path) -> None:
    def some(architecture: Architecture, file: Path, target: Target) -> None:
        if architecture.stages[0].dim == 64:
            raise RuntimeError("no such operation")
        marked(architecture, file, target)

    folder = tmp_path / "bundle"
    bundle([network(32), network(64)], folder, TARGET, seconds=1, rounds=1, export=some)
    assert measure(folder, runner(tmp_path, FAKES["onnxruntime"])).returncode == 0
    row = import_bundle(folder, DEVICE).get("network", network(64).digest)
    assert row is not None and row.failed_because == "export: RuntimeError: no such operation"


def test_bundles_are_completed_and_others_refused(tmp_path: Path) -> None:
    path = bundle([network(32)], tmp_path, TARGET, export=marked)
    file = tmp_path / read_manifest(path)["networks"][1]["file"]
    file.unlink()
    said: list[str] = []
    bundle([network(32)], tmp_path, TARGET, export=marked, say=said.append)
    assert file.exists() and said == ["exporting network 2 of 2"]
    with pytest.raises(InputError, match="another bundle"):
        bundle([network(64)], tmp_path, TARGET, export=marked)
    with pytest.raises(InputError, match="runner of its own"):
        bundle([network()], tmp_path / "new", Target(runtime="eager"), export=marked)
    with pytest.raises(InputError, match="in fp32"):
        bundle([network()], tmp_path / "new", Target(runtime="onnxruntime", precision="bf16"), export=marked)
    with pytest.raises(InputError, match="rounds"):
        bundle([network()], tmp_path / "new", TARGET, rounds=0, export=marked)


def test_a_bundle_of_executorch_holds_programs_that_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if lacking := missing("executorch"):
        pytest.skip(f"not installed: {', '.join(lacking)}")
    monkeypatch.setattr("nas.latency.subject.REFERENCE", network().to_dict())
    path = bundle([network()], tmp_path, Target(runtime="executorch"))
    (entry,) = read_manifest(path)["networks"]
    assert entry["file"].endswith(".pte") and not entry["failed"]
    from executorch.runtime import Runtime

    (logits,) = (
        Runtime.get().load_program(tmp_path / entry["file"]).load_method("forward").execute([torch.ones(1, 3, 32, 32)])
    )
    assert logits.shape == (1, 10) and bool(logits.isfinite().all())
    monkeypatch.setattr("nas.latency.remote.missing", lambda name: ("executorch",))
    with pytest.raises(InputError, match="pip install executorch"):
        bundle([network()], tmp_path / "new", Target(runtime="executorch"))


def test_an_altered_manifest_is_refused(tmp_path: Path) -> None:
    path = bundle([network(32)], tmp_path, TARGET, export=marked)
    manifest = read_manifest(path)
    path.write_text(path.read_text().replace('"rounds": 3', '"rounds": 4'))
    with pytest.raises(InputError, match="altered"):
        read_manifest(path)
    manifest["networks"][0]["file"] = "networks/../../secret.onnx"
    write_json(path, manifest)
    with pytest.raises(InputError, match="a network's file is"):
        remote("localhost", tmp_path, ["false"])


# over ssh


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "a;b", "a$(b)", "a`b`", "", "@a", "a@-b", "a\nb", "a@b@c"])
def test_a_host_that_is_none_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(InputError, match="a host is"):
        remote(host, tmp_path, ["false"])


def test_an_ssh_that_fails_is_told(tmp_path: Path) -> None:
    bundle([network()], tmp_path, TARGET, export=marked)
    with pytest.raises(InputError, match="cannot be started"):
        remote("device", tmp_path, [str(tmp_path / "none")])
    with pytest.raises(InputError, match="copying the bundle ended with code 5: 'no route'"):
        remote("device", tmp_path, ["sh", "-c", "cat > /dev/null; echo no route >&2; exit 5"])
    with pytest.raises(InputError, match="copying the bundle ended with code 7"):
        remote("device", tmp_path, ["sh", "-c", "exit 7"])
    with pytest.raises(InputError, match=r"measuring took longer than 0\.5 s"):
        script = "for last; do :; done; case $last in *measure.sh) exec sleep 60;; *) cat > /dev/null;; esac"
        remote("device", tmp_path, ["sh", "-c", script], seconds=0.5)


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """A server of ssh on this machine with keys of its own: the host to name, and the command to reach it."""
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("no ssh server is installed: apt-get install openssh-server")
    folder = tmp_path_factory.mktemp("sshd")
    folder.chmod(0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    port = free_port()
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile {folder}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # a server started by root leaves its rights there
    command = [program, "-D", "-e", "-f", str(folder / "config")]
    process = subprocess.Popen(command, stderr=(folder / "log").open("w"))
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    options = ["-F", "none", "-p", str(port), "-i", str(folder / "user"), "-o", "StrictHostKeyChecking=no"]
    ssh = [*SSH, *options, "-o", f"UserKnownHostsFile={folder}/known", "-o", "LogLevel=ERROR"]
    host = f"{user}@127.0.0.1"
    try:
        for _ in range(100):
            done = subprocess.run([*ssh, host, "true"], capture_output=True, text=True)
            if done.returncode == 0:
                break
            if process.poll() is not None:
                pytest.skip(f"the ssh server does not start here: {(folder / 'log').read_text()[-500:]}")
            time.sleep(0.05)
        else:
            pytest.skip(f"the ssh server does not let this user in: {done.stderr[-300:]}")
        yield host, ssh
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


@pytest.fixture
def there() -> Iterator[None]:
    """Removes what a test left in the user's home folder."""
    folder = Path.home() / "nas_latency"
    before = set(folder.iterdir()) if folder.is_dir() else set()
    yield
    for path in set(folder.iterdir()) - before if folder.is_dir() else ():
        shutil.rmtree(path)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


@pytest.mark.usefixtures("there")
def test_a_device_is_measured_over_ssh_and_goes_on_where_it_stopped(
    server: tuple[str, list[str]], tmp_path: Path
) -> None:
    host, ssh = server
    folder = tmp_path / "bundle"
    bundle([network(32), network(64)], folder, TARGET, seconds=1, rounds=2, export=marked)
    program = runner(tmp_path, FAKES["onnxruntime"])
    said: list[str] = []
    remote(host, folder, ssh, runner=str(program), say=said.append)
    assert said[0] == "round 1 of 2, network 1 of 3" and len(said) == 6
    row = import_bundle(folder, DEVICE).get("network", network(64).digest)
    assert row is not None and row.ratio == pytest.approx(64 / 192, rel=1e-4)
    said.clear()
    remote(host, folder, ssh, runner=str(program), say=said.append)
    assert said == []


@pytest.mark.usefixtures("there")
def test_what_the_device_says_is_told(server: tuple[str, list[str]], tmp_path: Path) -> None:
    host, ssh = server
    bundle([network(32)], tmp_path, TARGET, export=marked)
    hurt = tmp_path / "hurt"
    with pytest.raises(InputError, match="measuring ended with code 127") as caught:
        remote(host, tmp_path, ssh, runner=f"$(touch {hurt}); touch {hurt} 'a'")
    assert f"touch {hurt} 'a' is not here: install onnxruntime_perf_test" in caught.value.value
    assert not hurt.exists()


BENCHMARK_APP = Path(sysconfig.get_path("scripts")) / "benchmark_app"


@pytest.mark.usefixtures("there")
@pytest.mark.skipif(not BENCHMARK_APP.exists(), reason="no benchmark_app is installed: pip install openvino")
def test_benchmark_app_measures_an_exported_network_over_ssh(server: tuple[str, list[str]], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="networks are exported with onnxscript")
    host, ssh = server
    bundle([network()], tmp_path, Target(runtime="openvino"), {"openvino": "2026.4"}, seconds=1, rounds=1)
    remote(host, tmp_path, ssh, runner=str(BENCHMARK_APP))
    table = import_bundle(tmp_path, DEVICE)
    row = table.get("network", network().digest)
    assert row is not None and row.failed_because == "", (tmp_path / "results.csv").read_text()
    assert table.header.reference == reference_name()
    assert row.note == "imported; benchmark_app: median"
    assert dict(table.header.versions) == {"openvino": "2026.4"}


def test_modules_import_nothing_heavy() -> None:
    code = "import sys, nas.latency.remote, nas.latency.tables; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
