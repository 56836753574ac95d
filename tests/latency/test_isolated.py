"""The worker: readings come back, and whatever it dies of is a result here and leaves no process behind."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nas.core.errors import InputError
from nas.latency.isolated import LONGEST_WHY, Worker, one_line, tells_of_memory
from nas.latency.subject import REFERENCE

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 120.0  # seconds for what takes a few on an idle machine
QUICK = {"seconds": 0.3, "min_pairs": 8, "max_pairs": 16}
TARGET = {"device": "cpu", "runtime": "eager", "threads": 1}


def request(subject: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {"subject": subject or {"network": REFERENCE}, "target": TARGET, "limits": QUICK, **changes}


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(memory_mb=120) as made:
        yield made


def program(code: str) -> list[str]:
    """A worker that does something else."""
    return [sys.executable, "-c", textwrap.dedent(code)]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def group(leader: int) -> list[int]:
    """Living processes of a process group."""
    members = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return members


def gone(leader: int, within_s: float = 20.0) -> bool:
    """Whether a whole group ends in time."""
    deadline = time.monotonic() + within_s
    while group(leader):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_reading_comes_back(worker: Worker):
    """The reference against itself; the range shows that both were timed, not how well."""
    reply = worker.ask(request(reference_ms=8.0), LIMIT)
    reading = reply["reading"]
    assert 0.25 < reading["ratio"] < 4
    assert reading["ms"] == pytest.approx(8.0 * reading["ratio"]) and reading["reference_ms"] == 8.0
    assert reading["pairs"] >= 1 and isinstance(reading["notes"], list)
    assert reply["load_seconds"] > 0
    assert reply["energy_mj"] is None or reply["energy_mj"] > 0
    (output,) = reply["outputs"]
    assert output["shape"] == [1, 1000] and output["finite"] and output["rms"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are told by Linux")
def test_the_peak_of_memory_holds_weights_and_activations(worker: Worker):
    """A linear head of 8 million weights more takes 33 MB more."""
    small, large = (worker.ask(request({"network": {**REFERENCE, "classes": n}}), LIMIT) for n in (1_000, 43_000))
    assert small["outputs"][0]["shape"] == [1, 1_000] and large["outputs"][0]["shape"] == [1, 43_000]
    assert large["peak_mb"] - small["peak_mb"] == pytest.approx(42_000 * 193 * 4 / 1e6, rel=0.25)


def test_operators_are_timed_in_the_same_process(worker: Worker):
    assert "reading" in worker.ask(request(), LIMIT)
    pid = worker.pid
    with pytest.raises(InputError, match="the network has no such operator: 'nowhere'"):
        worker.ask(request({"network": REFERENCE, "operator": "nowhere"}), LIMIT)
    names = ["stages.0.embed", "stages.0.blocks.1.mixer"]
    shapes = [[1, 196, 192], [1, 197, 192]]
    replies = [worker.ask(request({"network": REFERENCE, "operator": name}), LIMIT) for name in names * 2]
    assert worker.pid == pid, "bad input ends no process"
    assert [reply["outputs"][0]["shape"] for reply in replies] == shapes * 2
    assert replies[:2] != replies[2:] and outputs(replies[:2]) == outputs(replies[2:])


def outputs(replies: list[dict[str, Any]]) -> list[Any]:
    return [reply["outputs"] for reply in replies]


def test_the_same_request_gives_the_same_outputs(worker: Worker):
    batch = {**TARGET, "batch": 2}
    one, two = (worker.ask(request(target=batch), LIMIT)["outputs"] for _ in range(2))
    assert one == two and one[0]["shape"] == [2, 1000]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"subject": {"picture": 1}}, 'what is timed is described by "network" or "timm": '),
        ({"subject": {"network": {**REFERENCE, "head": "clas_token"}}}, "clas_token"),
        ({"target": {"device": "cpu", "runtime": "eagre"}}, "unknown runtime: 'eagre' (nearest: eager"),
        ({"target": {"devise": "cpu"}}, "not the fields of a target"),
        ({"limits": {"minutes": 3}}, "not the fields of limits"),
    ],
)
def test_bad_input_is_told_as_such(worker: Worker, changes: dict[str, Any], expected: str):
    with pytest.raises(InputError) as caught:
        worker.ask(request(**changes), LIMIT)
    assert expected in str(caught.value)


def test_input_errors_keep_their_text(worker: Worker):
    from nas.latency.subject import read

    wrong = {**REFERENCE, "head": "clas_token"}
    with pytest.raises(InputError) as here:
        read(wrong, "the network to measure")
    with pytest.raises(InputError) as there:
        worker.ask(request({"network": wrong}), LIMIT)
    assert str(there.value) == str(here.value)


def test_no_time_is_a_timeout_and_the_next_request_is_answered():
    with Worker(program=program(ECHO_AFTER_A_LONG_FIRST)) as made:
        assert made.ask({"wait": 60}, 0.3)["failed"] == "timeout"
        assert made.pid is None
        assert made.ask({"wait": 0}, LIMIT) == {"reading": {"wait": 0}}


ECHO_AFTER_A_LONG_FIRST = """
    import json, sys, time
    for line in sys.stdin:
        request = json.loads(line)
        time.sleep(request["wait"])
        print(json.dumps({"reading": request}), flush=True)
"""


def test_a_process_that_keeps_too_much_is_replaced(monkeypatch: pytest.MonkeyPatch):
    code = """
        import sys
        held = []
        for line in sys.stdin:
            held.append(bytearray(b"x" * 20_000_000))
            print('{"reading": {}}', flush=True)
    """
    monkeypatch.setattr("nas.latency.isolated.GROWTH_MB", 50)
    with Worker(program=program(code)) as made:
        pids = []
        for _ in range(7):
            assert made.ask(request(), LIMIT) == {"reading": {}}
            pids.append(made.pid)
    ended = pids.index(None)
    assert pids[0] == pids[ended - 1] != pids[ended + 1], pids


def test_a_real_worker_without_time_is_ended():
    with Worker() as made:
        reply = made.ask(request(), 0.01)
        assert reply["failed"] == "timeout" and "0.01 s" in reply["why"]


def test_a_hang_ends_with_all_its_children(tmp_path: Path):
    file = tmp_path / "child"
    with Worker(program=["sh", "-c", f"sleep 600 & echo $! > {file}; wait"]) as made:
        reply = made.ask(request(), 2.0)
        child = int(file.read_text())
        assert reply["failed"] == "timeout"
        deadline = time.monotonic() + 20
        while alive(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(child)


def test_a_program_that_reads_nothing_does_not_hold_the_parent():
    with Worker(program=program("import time; time.sleep(600)")) as made:
        assert made.ask({"subject": "x" * 3_000_000}, 1.0)["failed"] == "timeout"


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory holds on Linux")
def test_lack_of_memory_is_a_result_and_the_process_is_replaced(worker: Worker):
    assert "reading" in worker.ask(request(), LIMIT)
    first = worker.pid
    reply = worker.ask(request({"network": {**REFERENCE, "classes": 100_000}}), LIMIT)
    assert reply["failed"] == "out of memory" and "allocate memory" in reply["why"]
    assert first is not None and gone(first)
    assert "reading" in worker.ask(request(), LIMIT)
    assert worker.pid != first


@pytest.mark.parametrize(
    ("code", "kind", "why"),
    [
        ("import os; os.kill(os.getpid(), 11)", "crashed", "SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "out of memory", "killed (SIGKILL), probably by the system"),
        ("raise SystemExit(3)", "crashed", "ended with code 3"),
        ("raise KeyError('a bug')", "crashed", "KeyError: 'a bug'"),
        (
            "import os, sys; sys.stderr.write('what(): std::bad_alloc\\n'); sys.stderr.flush(); os.abort()",
            "out of memory",
            "SIGABRT",
        ),
        ("print('hello')", "crashed", "hello"),
        ("print('[1]')", "crashed", "cannot be understood"),
        ("print('{}')", "crashed", "cannot be understood"),
        ('print(\'{"reading": {"ratio": NaN}}\')', "crashed", "cannot be understood"),
        ('print(\'{"reading": {}}\\n{"reading": {}}\')', "crashed", "cannot be understood"),
        ('print(\'{"failed": "mood"}\')', "crashed", "cannot be understood"),
        ("print('[' * 100_000)", "crashed", "cannot be understood"),
        ("import sys; sys.stdout.write('half a line')", "crashed", "ended with code 0 and no reply"),
        ("import sys\nwhile True: sys.stdout.write('x' * 10**6)", "crashed", "cannot be understood"),
        ("import os; os.close(1); import time; time.sleep(600)", "crashed", "closed its line"),
        ('print(\'{"failed": "timeout", "why": "two\\\\nlines"}\')', "timeout", "two lines"),
    ],
)
def test_a_death_or_garbage_is_a_result(monkeypatch: pytest.MonkeyPatch, code: str, kind: str, why: str):
    monkeypatch.setattr("nas.latency.isolated.GRACE", 1.0)
    with Worker(program=program("import sys; sys.stdin.readline()\n" + code)) as made:
        reply = made.ask(request(), LIMIT)
        assert reply["failed"] == kind and why in reply["why"], reply
        assert "\n" not in reply["why"] and len(reply["why"]) <= LONGEST_WHY
        assert made.pid is None, "a new process answers the next request"


def test_a_death_before_anything_is_read_is_a_result():
    with Worker(program=program("raise SystemExit(4)")) as made:
        assert made.ask({"subject": "x" * 3_000_000}, LIMIT)["why"].startswith("ended with code 4")


def test_a_program_that_is_not_there_is_a_result():
    with Worker(program=["/there/is/no/such/program"]) as made:
        assert made.ask(request(), LIMIT)["failed"] == "crashed"


def test_children_that_hold_the_line_do_not_hide_a_death():
    code = "import os, time\nif os.fork(): os.kill(os.getpid(), 11)\ntime.sleep(600)"
    with Worker(program=program(code)) as made:
        assert "SIGSEGV" in made.ask(request(), LIMIT)["why"]


def test_libraries_that_print_disturb_nothing():
    """What Python or a child prints is kept from the protocol and shown if it ends badly."""
    code = """
        import os, sys
        from nas.latency import worker
        def noisy(line, kept, memory_mb):
            print('{"reading": "of a library"}', flush=True)
            os.system("echo noise; cat")
            return {"reading": {"of": "the worker"}} if b"good" in line else os.abort()
        worker.answer = noisy
        worker.main()
    """
    with Worker(program=program(code)) as made:
        for _ in range(2):
            assert made.ask({"subject": "good"}, LIMIT) == {"reading": {"of": "the worker"}}
        assert made.ask({"subject": "bad"}, LIMIT) == {"failed": "crashed", "why": "killed (SIGABRT). noise"}


PARENT = """
    import signal, sys, threading, time
    from nas.latency.isolated import Worker
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background begins with it ignored
    worker = Worker(program=[sys.executable, "-c", CHILD])
    def tell():
        while worker.pid is None:
            time.sleep(0.01)
        print(worker.pid, flush=True)
    threading.Thread(target=tell, daemon=True).start()
    with worker:
        worker.ask({"subject": 1}, 600)
"""
# The real worker's protocol, in an answer that never ends and holds Python's lock, and a child that hangs as well.
CHILD = """
import os, re, subprocess, sys
from nas.latency import worker
def hang(*_):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("ready", file=sys.stderr, flush=True)
    re.match("(a+)+b", "a" * 60)
worker.answer = hang
worker.main()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_parent_that_ends_leaves_no_process(how: signal.Signals):
    code = f"CHILD = {CHILD!r}\n" + textwrap.dedent(PARENT)
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        try:
            assert parent.stdout is not None
            leader = int(parent.stdout.readline())
            deadline = time.monotonic() + 60
            while len(group(leader)) < 3:  # the worker, its guard and its child
                assert time.monotonic() < deadline
                time.sleep(0.05)
            parent.send_signal(how)
            assert parent.wait(60) != 0
        finally:
            parent.kill()
    assert gone(leader)


def test_an_exception_while_waiting_ends_the_group(monkeypatch: pytest.MonkeyPatch):
    started: list[int] = []

    def interrupted(process: subprocess.Popen[bytes], *_: object) -> None:
        started.append(process.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.latency.isolated._exchange", interrupted)
    made = Worker(program=program("import time; time.sleep(600)"))
    with pytest.raises(KeyboardInterrupt):
        made.ask(request(), LIMIT)
    assert made.pid is None and gone(started[0])


@pytest.mark.skipif(sys.platform != "linux", reason="cores are chosen on Linux")
def test_the_cores_are_those_of_the_parent_or_chosen():
    code = """
        import os
        from nas.latency import worker
        worker.answer = lambda *_: {"reading": {"cpus": sorted(os.sched_getaffinity(0))}}
        worker.main()
    """
    mine = sorted(os.sched_getaffinity(0))
    for cpus, expected in [(None, mine), (mine[-1:], mine[-1:])]:
        with Worker(cpus=cpus, program=program(code)) as made:
            assert made.ask(request(), LIMIT) == {"reading": {"cpus": expected}}
    for wrong in ([], [mine[-1] + 4096]):
        with pytest.raises(InputError, match="cores are some of those"):
            Worker(cpus=wrong)


@pytest.mark.parametrize("limit_s", [0, -1.0, math.nan])
def test_a_limit_is_positive(worker: Worker, limit_s: float):
    with pytest.raises(InputError, match="a time limit is positive"):
        worker.ask(request(), limit_s)
    with pytest.raises(InputError, match="a limit of memory is positive"):
        Worker(memory_mb=0)


def test_lack_of_memory_is_known_by_its_words():
    for text in (
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 589824 bytes",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "OSError: [Errno 12] Cannot allocate memory",
        "OpenVINO: RuntimeError: Failed to allocate 76800000 bytes of memory",
        "Failed to allocate memory for requested buffer of size 4096",
    ):
        assert tells_of_memory(text)
    assert not tells_of_memory("RuntimeError: shapes do not match")
    assert one_line("a\n\n b\t" + "c" * 1000).startswith("a b ccc") and len(one_line("c" * 1000)) == LONGEST_WHY
