"""Tables: what is written is read back, what was damaged or is another's is refused by name, kills lose nothing."""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.core import runs
from nas.core.errors import InputError
from nas.latency import tables as folders_of_tables
from nas.latency.clock import Reading
from nas.latency.device import Device
from nas.latency.row import NETWORK, Row, digest_of, failed, measured
from nas.latency.table import MAX_BYTES, Table, join, read_table
from nas.latency.tables import ESTIMATED, choose, file_name, left_open, listing, tables, user_folder
from nas.latency.target import Target, parse_target
from nas.ops.site import Site

DEVICE = Device("cpu", "Some Processor @ 2 GHz", "some-processor", 4, ("avx2", "fma"), 8_000_000_000)
OTHER = Device("cpu", "Another One", "another-one", 2, (), 4_000_000_000)
VERSIONS = {"torch": "2.15.0+cpu", "openvino": "2026.4.1"}
TARGET = Target(runtime="openvino")
DATE = "2026-11-21T15:42:10Z"
SITE = Site(192, 14, 14, 196, 1, 3, 64)
NETWORK_DOCUMENT = {
    "stages": [{"embed": "patch(size=16)", "dim": 192, "blocks": [{"layer_scale": 1e-05}]}],
    "head": "mean",
}


def reading(ratio: float = 0.5, notes: tuple[str, ...] = (), settled: bool = True) -> Reading:
    return Reading(ratio, ratio * 0.99, ratio * 1.01, 0.01, ratio * 3, 3.0, 40, 1.0, settled, 0.0, 0.0, 0, notes)


def empty(device: Device = DEVICE, target: Target = TARGET, versions: dict[str, str] = VERSIONS) -> Table:
    return Table.new(target, device, versions, "clock_reference 0123", 3.1234567, 200, created=DATE)


def filled() -> Table:
    table = empty()
    table = table.with_row(measured("mixer", "softmax(head_dim=64, heads=3)", reading(), site=SITE, date=DATE))
    table = table.with_row(measured("head", "mean", reading(), site=SITE, context={"classes": 1000}, date=DATE))
    table = table.with_row(failed("mixer", "window(size=7)", "out of\n memory", site=SITE, date=DATE))
    digest = digest_of(NETWORK_DOCUMENT)
    return table.with_row(measured(NETWORK, digest, reading(7 / 3), document=NETWORK_DOCUMENT, date=DATE))


def resummed(text: str) -> str:
    body = text.rpartition("# sha256: ")[0]
    return f"{body}# sha256: {hashlib.sha256(body.encode()).hexdigest()}\n"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    table = filled()
    table.write(tmp_path / "new" / "one.csv")
    read = read_table(tmp_path / "new" / "one.csv")
    assert read == table
    assert read.text() == table.text()
    assert read.header.device == DEVICE and read.header.target == TARGET
    assert dict(read.header.versions) == VERSIONS
    (network,) = read.networks()
    assert network.document == NETWORK_DOCUMENT
    assert read.ms(network) == pytest.approx(2.3333 * 3.1235)
    row = read.get("mixer", "window(size=7)", SITE)
    assert row is not None and row.failed_because == "out of memory" and read.ms(row) is None
    assert read.get("head", "mean", SITE) is None and read.get("head", "mean", SITE, {"classes": 1000}) is not None


def test_a_reader_of_csv_understands_the_rows(tmp_path: Path) -> None:
    lines = [line for line in filled().text().splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    assert [row["kind"] for row in rows] == ["head", "mixer", "mixer", "network"]
    assert rows[1]["spec"] == "softmax(head_dim=64, heads=3)" and float(rows[1]["ratio"]) == 0.5


def test_rows_do_not_depend_on_the_order_of_measuring() -> None:
    rows = list(filled().rows.values())
    one, two = empty(), empty()
    for row in rows:
        one = one.with_row(row)
    for row in reversed(rows):
        two = two.with_row(row)
    assert one.text() == two.text()


def test_a_new_row_changes_one_line_of_rows() -> None:
    before = filled()
    after = before.with_row(measured("mixer", "softmax(head_dim=64, heads=3)", reading(0.6), site=SITE, date=DATE))
    changed = set(before.text().splitlines()) ^ set(after.text().splitlines())
    assert len([line for line in changed if not line.startswith("# sha256")]) == 2


def test_notes_tell_what_disturbed() -> None:
    row = measured("head", "mean", reading(notes=("busy: 0.4 cores",), settled=False), site=SITE)
    assert row.note == "busy: 0.4 cores; unsettled: the time was up"


words = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=30)
numbers = st.floats(1e-300, 1e300, allow_nan=False)
counts = st.integers(0, 10**9)


@st.composite
def row(draw: Any) -> Row:
    site = Site(*(draw(counts) for _ in range(7)), draw(st.sampled_from(["grid", "subset"])), draw(counts))
    context = draw(st.dictionaries(st.sampled_from(["classes", "dim", "x_1"]), counts | st.sampled_from(["a", "b.2"])))
    fields: dict[str, Any] = {"date": DATE}
    if draw(st.booleans()):
        fields["document"] = draw(st.dictionaries(words, counts | words | st.floats(-1e3, 1e3) | st.none(), max_size=3))
        kind, spec = NETWORK, digest_of(fields["document"])
    else:
        kind, spec = draw(st.sampled_from(["mixer", "embed"])), draw(words)
        fields |= {"site": site, "context": context}
    if draw(st.booleans()):
        return failed(kind, spec, draw(st.text(max_size=400)), **fields)
    notes = tuple(draw(st.lists(st.text(max_size=50), max_size=2)))
    low, ratio, high = sorted(draw(st.lists(numbers, min_size=3, max_size=3)))
    found = reading(notes=notes)._replace(low=low, ratio=ratio, high=high, pairs=draw(st.integers(1, 10**6)))
    return measured(kind, spec, found, **fields)


@settings(max_examples=60, deadline=None)
@given(st.lists(row(), max_size=6))
def test_any_rows_are_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    table = empty()
    for one in rows:
        table = table.with_row(one)
    path = tmp_path_factory.mktemp("table") / "one.csv"
    path.write_text(table.text(), encoding="utf-8", newline="")
    assert read_table(path) == table


@pytest.mark.parametrize(
    "change",
    [
        {"ratio": float("nan")},
        {"ratio": float("inf")},
        {"ratio": -1.0},
        {"ratio": 0.0},
        {"high": 0.1},
        {"pairs": 0},
        {"pairs": 1.5},
        {"ratio": None},
        {"kind": "Mixer"},
        {"spec": ""},
        {"spec": "two\nlines"},
        {"note": "two\rlines"},
        {"note": "failed: out of memory"},
        {"date": "yesterday"},
        {"date": "2026-13-21T15:42:10Z"},
        {"site": None},
        {"site": SITE._replace(tokens=-1)},
        {"context": (("b", 1), ("a", 1))},
        {"context": (("a", "x y"),)},
        {"context": (("a", "7"),)},
        {"architecture": "{}"},
        {"kind": NETWORK},
    ],
)
def test_a_row_that_a_table_cannot_hold_is_refused(change: dict[str, Any]) -> None:
    whole = measured("mixer", "softmax", reading(), site=SITE, date=DATE)
    with pytest.raises(InputError):
        replace(whole, **change)


def test_a_network_of_another_architecture_is_refused() -> None:
    with pytest.raises(InputError, match="digest"):
        measured(NETWORK, "0" * 64, reading(), document=NETWORK_DOCUMENT)


def test_a_table_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    filled().write(path)
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        with pytest.raises(InputError, match=r"one\.csv"):
            read_table(path)


def test_a_table_with_one_other_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    filled().write(path)
    data = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(data):
            os.pwrite(file.fileno(), bytes([byte ^ random.Random(place).choice([1, 2, 4, 8, 16, 32, 128])]), place)
            with pytest.raises(InputError, match=r"one\.csv"):
                read_table(path)
            os.pwrite(file.fileno(), bytes([byte]), place)
    assert read_table(path) == filled()


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("# format: 1", "# format: 2", "newer format.*: 2"),
        ("# format: 1", "# format: one", "tells the format"),
        ("0.5,0.495", "inf,0.495", "one.csv:[0-9]+: numbers are finite and positive"),
        ("0.5,0.495", "-0.5,0.495", "finite and positive"),
        ("0.5,0.495", "0,0.495", "finite and positive"),
        ("0.5,0.495", "1e999,0.495", "finite and positive"),
        ("0.5,0.495", "0.5,0.6", "in this order"),
        (",40,", ",-40,", "whole number"),
        ("mixer,", "embed,x,", "columns"),
        ("mixer,", '"mixer,', "CSV|columns"),
        ("# runtime: openvino\n", "", "lacks a key.*runtime"),
        ("# runtime: openvino\n", "# runtime: openvino\n# runtime: eager\n", "each key once"),
        ("# runtime: openvino\n", "# runtime: openvino\n# more: 1\n", "not those of this format"),
        ("# threads: 1\n", "# threads: 0\n", "1 thread or more"),
        ("# kind: cpu", "# kind: gpu", "kind"),
        ("# batch: 1", "# batch: 0", "1 image"),
        ("# channels_last: false", "# channels_last: no", "true or false"),
        ("# reference_ms: 3.1235", "# reference_ms: nan", "finite"),
        ("kind,spec", "kind,specs", "names of the columns"),
        ('"dim":192', '"dim":193', "digest of its architecture"),
        ("# network ", "# networks ", "each once"),
    ],
)
def test_a_table_that_was_edited_is_refused_with_its_rule(tmp_path: Path, old: str, new: str, rule: str) -> None:
    text = filled().text()
    assert old in text
    path = tmp_path / "one.csv"
    path.write_text(resummed(text.replace(old, new, 1)))
    with pytest.raises(InputError, match=rule):
        read_table(path)


def test_a_doubled_row_is_refused_with_its_line(tmp_path: Path) -> None:
    lines = filled().text().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if line.startswith("mixer"))
    path = tmp_path / "one.csv"
    path.write_text(resummed("".join([*lines[: number + 1], lines[number], *lines[number + 1 :]])))
    with pytest.raises(InputError, match=rf"one\.csv:{number + 2}: each place has one row"):
        read_table(path)


def test_a_network_without_its_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    kept = [line for line in filled().text().splitlines(keepends=True) if not line.startswith("# network ")]
    path.write_text(resummed("".join(kept)))
    with pytest.raises(InputError, match="carries its architecture"):
        read_table(path)


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    with pytest.raises(InputError, match="cannot be read"):
        read_table(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path)
    path.write_bytes(os.urandom(1000))
    with pytest.raises(InputError, match="not a latency table"):
        read_table(path)
    with path.open("wb") as file:
        file.truncate(50_000_000)
    with pytest.raises(InputError, match=f"at most {MAX_BYTES}"):
        read_table(path)


@pytest.mark.parametrize(
    ("name", "target", "device", "versions"),
    [
        ("device", TARGET, OTHER, VERSIONS),
        ("runtime", replace(TARGET, runtime="eager"), DEVICE, VERSIONS),
        ("precision", replace(TARGET, precision="bf16"), DEVICE, VERSIONS),
        ("batch", replace(TARGET, batch=16), DEVICE, VERSIONS),
        ("threads", replace(TARGET, threads=2), DEVICE, VERSIONS),
        ("channels_last", replace(TARGET, channels_last=True), DEVICE, VERSIONS),
        ("torch", TARGET, DEVICE, {"torch": "2.16.0"}),
        ("openvino", TARGET, DEVICE, {"openvino": "2027.0"}),
    ],
)
def test_what_differs_is_refused_by_name_and_allowed_by_name(
    name: str, target: Target, device: Device, versions: dict[str, str]
) -> None:
    table = filled()
    with pytest.raises(InputError, match=rf"x\.csv: the table is of another {name} \(.*--allow-mismatch {name}$"):
        table.check(target, device, versions, place="x.csv")
    table.check(target, device, versions, allow={name})


def test_several_differences_are_all_named() -> None:
    target = replace(TARGET, batch=16, runtime="eager")
    with pytest.raises(InputError, match="another runtime, batch") as caught:
        filled().check(target, DEVICE, {"torch": "2.15.3"})
    assert "batch 1, not 16" in str(caught.value)
    with pytest.raises(InputError, match="another batch"):
        filled().check(target, DEVICE, VERSIONS, allow={"runtime"})


def test_an_unknown_mismatch_is_refused() -> None:
    with pytest.raises(InputError, match="nearest: batch"):
        filled().check(TARGET, DEVICE, VERSIONS, allow={"bach"})


def test_joined_tables_keep_the_newer_row() -> None:
    one = empty().with_row(measured("head", "mean", reading(0.5), site=SITE, date="2026-11-21T15:42:10Z"))
    two = empty().with_row(measured("head", "mean", reading(0.6), site=SITE, date="2026-11-22T15:42:10Z"))
    two = two.with_row(measured("head", "class_token", reading(), site=SITE, date=DATE))
    for joined in (join(one, two), join(two, one)):
        assert len(joined.rows) == 2
        kept = joined.get("head", "mean", SITE)
        assert kept is not None and kept.ratio == 0.6
    with pytest.raises(InputError, match="device some-processor, not another-one"):
        join(one, empty(OTHER))
    with pytest.raises(InputError, match="reference"):
        join(one, Table.new(TARGET, DEVICE, VERSIONS, "another", 3.0))


WRITER = """
import sys
from dataclasses import replace
from nas.latency.table import read_table
path = sys.argv[1]
table = read_table(path)
(row,) = table.networks()
print("ready", flush=True)
while True:
    for ratio in (2.0, 3.0):
        table = table.with_row(replace(row, low=ratio, ratio=ratio, high=ratio))
        table.write(path)
"""


def test_killed_while_writing_a_whole_table_is_there(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    filled().write(path)
    for number in range(5):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(random.Random(number).uniform(0.005, 0.08))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert len(read_table(path).rows) == 4


def test_a_full_disk_leaves_the_earlier_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.csv"
    filled().write(path)
    before = path.read_bytes()

    def full(descriptor: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runs.os, "write", full)
    with pytest.raises(InputError, match="No space left"):
        empty().write(path)
    monkeypatch.undo()
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["one.csv"]


# which tables there are


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A user's and a shipped folder, both empty."""
    own, shipped = tmp_path / "own", tmp_path / "shipped"
    own.mkdir()
    shipped.mkdir()
    monkeypatch.setenv("NAS_TABLES", str(own))
    monkeypatch.setattr(folders_of_tables, "data_folder", lambda name: shipped)
    return own, shipped


def put(folder: Path, table: Table) -> Path:
    path = folder / file_name(table.header.target, table.header.device)
    table.write(path)
    return path


def test_a_file_is_named_after_device_and_target() -> None:
    assert file_name(TARGET, DEVICE) == "some-processor_openvino_fp32_t1_b1.csv"
    gpu = Target("cuda:0", "eager", "fp16", 0, 16, channels_last=True)
    assert file_name(gpu, DEVICE) == "some-processor_eager_fp16_t0_b16_channels_last.csv"


def test_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NAS_TABLES", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert user_folder() == tmp_path / "data" / "nas" / "latency_tables"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert user_folder() == Path.home() / ".local/share/nas/latency_tables"
    (tmp_path / "latency_tables").mkdir()
    assert user_folder().resolve() == tmp_path / "latency_tables"
    monkeypatch.setenv("NAS_TABLES", str(tmp_path / "told"))
    assert user_folder() == tmp_path / "told"


def test_a_damaged_table_is_listed_with_the_reason(places: tuple[Path, Path]) -> None:
    own, shipped = places
    put(shipped, filled())
    (own / "broken.csv").write_text(filled().text()[:-30])
    broken, sound = listing()
    assert "damaged or was altered" in broken["damaged"]
    assert (sound["operators"], sound["networks"], sound["failed"]) == (2, 1, 1)
    assert sound["damaged"] == "" and sound["target"] == str(TARGET)
    assert [found.table is None for found in tables()] == [True, False]
    assert choose(TARGET, DEVICE, VERSIONS).own


def test_own_table_then_a_shipped_one_then_an_estimate(places: tuple[Path, Path]) -> None:
    own, shipped = places
    nothing = choose(TARGET, DEVICE, VERSIONS)
    assert nothing.table is None and nothing.notice.startswith(ESTIMATED)
    put(shipped, empty(OTHER))
    other = choose(TARGET, DEVICE, VERSIONS)
    assert other.table is not None and not other.own
    assert other.notice == "measured on Another One, not on this machine"
    path = put(own, filled())
    chosen = choose(TARGET, DEVICE, VERSIONS)
    assert (chosen.table, chosen.path, chosen.own, chosen.notice) == (filled(), path, True, "")


def test_an_own_table_of_another_batch_is_named_and_not_used(places: tuple[Path, Path]) -> None:
    put(places[0], filled())
    target = replace(TARGET, batch=16)
    choice = choose(target, DEVICE, VERSIONS)
    assert choice.table is None and "b1.csv: another batch" in choice.notice
    assert choose(target, DEVICE, VERSIONS, allow={"batch"}).own


def test_without_the_device_what_was_not_asked_for_is_the_tables(places: tuple[Path, Path]) -> None:
    gpu = Device("gpu", "Big GPU", "big-gpu", 100, ("sm_90",), 80_000_000_000)
    put(places[1], empty(gpu, Target("cuda:0", "eager", "fp16", 0, 16), {}))
    asked = Target("cuda:0", "compile", "fp32", 0, 1)
    assert choose(asked, None, VERSIONS).table is None
    assert left_open(parse_target("gpu:batch=16")) == {"runtime", "precision", "threads"}
    assert choose(asked, None, VERSIONS, open_to=left_open(parse_target("gpu:batch=1"))).table is None
    choice = choose(asked, None, VERSIONS, open_to=left_open(parse_target("gpu")))
    assert choice.table is not None and choice.table.header.target.runtime == "eager"
    assert "measured on Big GPU" in choice.notice
