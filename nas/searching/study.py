"""Study: made once with the facts of its search, and taken up again only by a search with the same facts."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import optuna
from optuna import Study
from optuna.exceptions import DuplicatedStudyError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from nas.core.errors import InputError, nearest
from nas.core.runs import differences, environment
from nas.searching.storage import (
    GRACE_S,
    HEARTBEAT_S,
    PatientStorage,
    masked,
    open_storage,
    silent,
    storage_errors,
)

FACTS = "search"  # the study's attribute that holds them
SHOWN = 10  # differences in a message
LENGTH = 200  # characters of each
SETTLED_S = 10.0  # that another process may take from making a study to writing its facts

Mode = Literal["new", "resume", "join"]


class Opened(NamedTuple):
    """A study, its storage, the storage's address, and whether the study was made just now."""

    study: Study
    storage: PatientStorage
    url: str
    made: bool


def facts_of(space: Mapping[str, Any], objectives: Sequence[str], **others: Any) -> dict[str, Any]:
    """What makes a search: the space's document with its hash, the objectives, versions, and whatever else is given.

    Others are target, budget, accuracy, data, sampler, seed: anything JSON holds. None is left out.
    """
    text = json.dumps(space, sort_keys=True, allow_nan=False)
    versions = {"nas": environment()["nas"]["version"], **environment()["packages"]}
    facts = {
        "space": {"sha256": hashlib.sha256(text.encode()).hexdigest(), "document": space},
        "objectives": list(objectives),
        **{key: value for key, value in others.items() if value is not None},
        "versions": versions,
    }
    made = json.loads(json.dumps(facts, allow_nan=False))
    assert isinstance(made, dict)
    return made


def open_study(
    url: str,
    name: str,
    directions: Sequence[str],
    facts: Mapping[str, Any],
    settle: Callable[[Study, FrozenTrial], None],
    mode: Mode = "new",
    *,
    allow: Collection[str] = (),
    heartbeat_s: int = HEARTBEAT_S,
    grace_s: int = GRACE_S,
) -> Opened:
    """The study of a name in a storage.

    mode    new: there is none yet; resume: there is one; join: either, as one of several workers
    settle  is given the trials of workers that died
    allow   facts that may differ, by their first key
    """
    storage = open_storage(url, settle, heartbeat_s=heartbeat_s, grace_s=grace_s)
    place = masked(url)
    with storage_errors(url), silent():
        try:
            made = mode != "resume" and _make(storage, name, directions, facts)
            if not made and mode == "new":
                raise InputError("a study of this name exists: choose another name, or resume", name, place)
            names = optuna.get_all_study_names(storage)
            if name not in names:
                raise InputError("no such study", value=name, place=place, nearest=nearest(name, names))
            study = optuna.load_study(study_name=name, storage=storage)
            _check(study, directions, facts, allow, place)
        except InputError:
            raise
        except (ValueError, KeyError) as error:  # what it holds is not what was written
            raise InputError(f"the study is damaged ({' '.join(str(error).split())})", name, place) from error
    return Opened(study, storage, url, made)


def _make(storage: PatientStorage, name: str, directions: Sequence[str], facts: Mapping[str, Any]) -> bool:
    """Make the study; False where it is there already."""
    try:
        wanted = [StudyDirection[direction.upper()] for direction in directions]
        study = optuna.create_study(storage=storage, study_name=name, directions=wanted)
    except DuplicatedStudyError:
        return False
    study.set_user_attr(FACTS, dict(facts))
    return True


def _check(
    study: Study, directions: Sequence[str], facts: Mapping[str, Any], allow: Collection[str], place: str
) -> None:
    """InputError naming each fact in which a study differs."""
    start = time.monotonic()
    while (before := study.user_attrs.get(FACTS)) is None:
        if time.monotonic() - start > SETTLED_S:
            raise InputError("the study was not made by this program", value=study.study_name, place=place)
        time.sleep(0.1)
    told = differences(
        {key: value for key, value in before.items() if key not in allow},
        {key: value for key, value in facts.items() if key not in allow},
    )
    stored = [direction.name.lower() for direction in study.directions]
    told += differences(stored, list(directions), "directions")
    if told:
        lines = [line if len(line) <= LENGTH else line[: LENGTH - 3] + "..." for line in told[:SHOWN]]
        more = [f"and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
        raise InputError(f"the study was started with other facts: {'; '.join([*lines, *more])}", place=place)
