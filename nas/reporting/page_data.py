"""Page data: what the page of some searches shows, as one JSON value, column by column.

Small, since a page holds every network: figures have five significant digits, and a column is packed (`packed`). The
documents of networks are columns as well, of the networks, of their stages, and of the entries of their blocks.
"""

from __future__ import annotations

import json
import math
import shlex
import string
from collections.abc import Mapping, Sequence
from typing import Any

from nas.core.errors import InputError
from nas.reporting.choices import JOIN, Table, choice_table, importance
from nas.reporting.compared import ESTIMATED, label, names, objectives
from nas.reporting.finished import DIRECTIONS, LABELS, SIGMA, Finished, Row, over
from nas.reporting.pareto import MAXIMIZE
from nas.reporting.plot_progress import progress

DIGIT = string.ascii_letters + string.digits + "-_"
DIGITS = 5  # significant, of figures
SHORT = 12  # digits of a hash: they tell networks apart, and networks are exported by them
BARS = 12  # choices whose importance is shown
LEAST_SHARE = 0.005  # below it a choice explains nothing
TRIAL, MEASURED = "trial", "measured_ms"
COUNTED = ("macs", "params")  # figures told with a prefix, as 1.2 G
ENDS = {"trials": "its number of networks", "time": "its time", "exhausted": "the end of its space"}


def page_data(runs: Sequence[Finished]) -> dict[str, Any]:
    """What the script of the page reads."""
    rows = [row for run in runs for row in run.rows]
    choices = choice_table(rows)
    return {
        "count": len(rows),
        "lead": _lead(runs),
        "notices": _notices(runs),
        "objectives": list(objectives(runs) or runs[0].objectives),
        "figures": _figures(runs, rows),
        "digest": [row["digest"][:SHORT] for row in rows],
        "origin": packed([row["origin"] for row in rows]),
        "reason": packed([row["reason"] for row in rows]),
        "over": packed([_rounded(over(row)) for row in rows]),
        "choices": [[name, packed([_rounded(value) for value in column])] for name, column in choices.items()],
        "networks": _networks(rows),
        "runs": _runs(runs, choices),
        "progress": _progress(runs),
    }


def packed(values: Sequence[Any]) -> Any:
    """A column, in whichever of its forms is the shortest as JSON; the script's `unpack` is the inverse.

    {"all": value}                one value for all
    {"of": values, "at": "..."}   indices into a list of values, as digits of DIGIT: one where one is enough, else two
    {"names": texts, "at": ...}   joined texts, as indices of their parts, joined: "softmax+window" as "3+7"
    [...]                         as it is
    """
    texts = [repr(value) for value in values]  # tells 1, 1.0 and True apart
    distinct = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    if len(distinct) == 1:
        return {"all": values[0]}
    of = list(dict(zip(texts, values, strict=True)).values())
    forms: list[Any] = [list(values)]
    if len(distinct) <= len(DIGIT) ** 2:
        width = 1 if len(distinct) <= len(DIGIT) else 2
        at = "".join(_digits(distinct[text], width) for text in texts)
        forms.append({"of": of, "at": at})
    if all(value is None or isinstance(value, str) for value in values):
        parts = [None if value is None else value.split(JOIN) for value in values]
        numbers = {name: i for i, name in enumerate(dict.fromkeys(name for found in parts for name in found or ()))}
        joined = [None if found is None else JOIN.join(str(numbers[name]) for name in found) for found in parts]
        forms.append({"names": list(numbers), "at": joined})
    return min(forms, key=lambda form: len(json.dumps(form)))


def _digits(number: int, width: int) -> str:
    """A number in base 64."""
    high, low = divmod(number, len(DIGIT))
    return DIGIT[low] if width == 1 else DIGIT[high] + DIGIT[low]


def _rounded(value: Any) -> Any:
    """Numbers with five significant digits, whole ones as such; None for what is not finite. All else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() else short


def _figures(runs: Sequence[Finished], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every number that networks have: key, label, where better is, values, and standard deviations where known."""
    wanted = {name for run in runs for name in run.objectives}
    known = [key for key in LABELS if key in wanted or any(row.get(key) is not None for row in rows)]
    others = {key for row in rows for key, value in row.items() if type(value) in (int, float)}
    others -= {*LABELS, TRIAL, *(key for key in others if key.endswith(SIGMA))}
    found = []
    for key in [*known, *sorted(others)]:
        values = [_rounded(row.get(key)) for row in rows]
        spread = [_rounded(row.get(key + SIGMA)) for row in rows]
        found.append(_figure(key, label(runs, key).replace("\n", ", "), values, spread))
    again = {(i, row["digest"]): row for i, run in enumerate(runs) for row in run.front}
    ours = [again.get((i, row["digest"]), {}) for i, run in enumerate(runs) for row in run.rows]
    if any(row.get(MEASURED) is not None for row in ours):
        values = [_rounded(row.get(MEASURED)) for row in ours]
        spread = [None if row.get(MEASURED) is None else _half(row) for row in ours]
        found.append(_figure(MEASURED, "measured latency (ms)", values, spread, better=-1))
    return [*found, _figure(TRIAL, TRIAL, [row[TRIAL] for row in rows], [])]


def _figure(key: str, name: str, values: list[Any], spread: list[Any], better: int | None = None) -> dict[str, Any]:
    if better is None:
        better = 0 if key not in DIRECTIONS else 1 if DIRECTIONS[key] == MAXIMIZE else -1
    known = any(value is not None for value in spread)
    told = {"key": key, "label": name, "better": better, "counted": key in COUNTED}
    return {**told, "values": packed(values), "sigma": packed(spread) if known else None}


def _half(member: Row) -> Any:
    """Half of the interval of a measured latency."""
    return _rounded((member["measured_high"] - member["measured_low"]) / 2)


def _networks(rows: Sequence[Row]) -> dict[str, Any]:
    """The documents of networks: three tables, each with how many of the next belong to each of its rows."""
    networks, stages, entries = [], [], []
    counts: dict[str, list[int]] = {"stages": [], "entries": []}
    tokens: list[int | None] = []
    dropped: list[int] = []
    for row in rows:
        document, blocks = row["architecture"], row["outline"]
        networks.append({key: value for key, value in document.items() if key != "stages"})
        counts["stages"].append(len(document["stages"]))
        _check_outline(row)
        for number, stage in enumerate(document["stages"]):
            stages.append({key: value for key, value in stage.items() if key != "blocks"})
            counts["entries"].append(len(stage["blocks"]))
            tokens.append(next((block["tokens"] for block in blocks if block["stage"] == number), None))
            entries.extend(stage["blocks"])
        dropped.extend(block["tokens"] - block["left"] for block in blocks)
    return {
        **_fields(networks),
        "counts": packed(counts["stages"]),
        "stages": {**_fields(stages), "counts": packed(counts["entries"]), "tokens": packed(tokens)},
        "entries": _fields(entries),
        "blocks": len(dropped),
        "dropped": packed(dropped),
    }


def _check_outline(row: Row) -> None:
    """The blocks of the outline are those of the document: the page draws the one with the tokens of the other."""
    written = [
        (number, entry.get("mixer", ""))
        for number, stage in enumerate(row["architecture"]["stages"])
        for entry in stage["blocks"]
        for _ in range(entry.get("repeat", 1))
    ]
    if written != [(block["stage"], block["mixer"]) for block in row["outline"]]:
        raise InputError("the outline of a network is not that of its architecture", row["digest"])


def _fields(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Records as columns by key, None where a record has none."""
    keys = dict.fromkeys(key for record in records for key in record)
    columns = [[key, packed([record.get(key) for record in records])] for key in keys]
    return {"length": len(records), "fields": columns}


def _runs(runs: Sequence[Finished], choices: Table) -> list[dict[str, Any]]:
    found, begin = [], 0
    for run, name in zip(runs, names(runs), strict=True):
        at = {row["digest"]: begin + i for i, row in enumerate(run.rows)}
        part = {key: column[begin : begin + len(run.rows)] for key, column in choices.items()}
        found.append(
            {
                "name": name,
                "shell": shlex.quote(str(run.path)),
                "from": begin,
                "rows": len(run.rows),
                "limits": run.budget.limits(),
                "target": run.about["target"],
                "front": [_member(row, at, run) for row in run.front],
                "importance": {key: _bars(run, part, key) for key in run.objectives},
                "facts": _facts(run),
            }
        )
        begin += len(run.rows)
    return found


def _member(row: Row, at: Mapping[str, int], run: Finished) -> dict[str, Any]:
    if row["digest"] not in at:
        raise InputError("a member of the front is none of the networks of its search", row["digest"], str(run.path))
    again = {"ms": MEASURED, "low": "measured_low", "high": "measured_high", "peak": "peak_mb"}
    told = {key: _rounded(row.get(name)) for key, name in again.items()}
    return {
        "row": at[row["digest"]],
        "number": row["number"],
        **told,
        "notes": row.get("notes"),
        "file": row.get("file"),
    }


def _bars(run: Finished, table: Table, objective: str) -> list[list[Any]]:
    """The choices that explain most of an objective, over the networks for which it is known."""
    values = [None if row["reason"] else row.get(objective) for row in run.rows]
    return [[name, round(share, 3)] for name, share in importance(table, values) if share >= LEAST_SHARE][:BARS]


def _progress(runs: Sequence[Finished]) -> dict[str, Any] | None:
    """The hypervolume after each network, as a share of the largest; only where it changes, and the end."""
    found = progress(runs)
    if found is None:
        return None
    curves = []
    for curve in found.curves:
        last = len(curve.shares) - 1
        kept = [i for i in range(last + 1) if i in (0, last) or curve.shares[i] != curve.shares[i - 1]]
        curves.append([[int(curve.trials[i]), _rounded(float(curve.shares[i]))] for i in kept])
    point = ", ".join(f"{name} {value:.4g}" for name, value in zip(found.objectives, found.reference, strict=True))
    how = found.how
    for number, name in enumerate(found.objectives):
        how = how.replace(f"objective {number}:", f"{name}:")
    return {"curves": curves, "told": f"{point} ({how})"}


def _lead(runs: Sequence[Finished]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} searches side by side"
    run = runs[0]
    space = run.provenance["config"].get("space", "a space")
    return f"A search of {space} for {run.about['target']}, {_budget(run)}"


def _budget(run: Finished) -> str:
    return "without a budget" if run.about["budget"] is None else f"within {run.budget.describe()}"


def _notices(runs: Sequence[Finished]) -> list[str]:
    """What a reader has to know before believing anything."""
    found: list[str] = []
    for run, name in zip(runs, names(runs), strict=True):
        own = list(run.about["notices"])
        if str(run.about["latency"] or "").startswith(ESTIMATED):
            own.append(f"Latency is {run.about['latency']}.")
        found.extend(f"{name}: {text}" if len(runs) > 1 else text for text in own)
    for key, what in (
        ("accuracy", "Accuracies are of different estimators"),
        ("target", "Latencies are of different targets"),
    ):
        told = sorted({str(run.about[key]) for run in runs})
        if len(told) > 1:
            found.append(f"{what} ({', '.join(told)}) and cannot be compared between those searches.")
    return list(dict.fromkeys(found))


def _facts(run: Finished) -> list[list[str]]:
    """Provenance, in words; what is not known is left out."""
    told, about = run.provenance, run.about
    config, nas, machine = (told.get(key) or {} for key in ("config", "nas", "machine"))
    commit = nas.get("git_commit")
    dirty = ", with changes" if nas.get("git_dirty") else ""
    unit = f" ({about['unit']})" if about["unit"] else ""
    found: dict[str, Any] = {
        "command": shlex.join(str(part) for part in told.get("command") or ()),
        "folder": str(run.path),
        "space": config.get("space"),
        "budget": about["budget"] or "none",
        "objectives": ", ".join(run.objectives),
        "accuracy": f"{about['accuracy']}{unit}",
        "weights": config.get("run"),
        "data": config.get("data") or "none",
        "target": about["target"],
        "latency": about["latency"],
        "networks": str(len(run.rows)),
        "ended by": ENDS.get(str(about["end"]), about["end"]),
        "sampler": config.get("sampler"),
        "seed": told.get("seed"),
        "created": told.get("created"),
        "resumed": len(told.get("resumed") or ()) or None,
        "code": ", ".join(
            [f"nas {nas.get('version', 'of unknown version')}", *([f"commit {commit}{dirty}"] if commit else [])]
        ),
        "packages": ", ".join(f"{name} {version}" for name, version in (told.get("packages") or {}).items()),
        "python": machine.get("python"),
        "machine": ", ".join(str(machine[key]) for key in ("cpu", "platform") if machine.get(key)),
        "cores": machine.get("cores_usable"),
        "notices": "; ".join(about["notices"]),
    }
    return [[name, str(value)] for name, value in found.items() if value not in (None, "")]
