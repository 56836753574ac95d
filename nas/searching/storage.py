"""Where a study lives: a SQLite file in the run's folder, or any database that SQLAlchemy reaches.

Whatever the database refuses is one InputError with the storage's address, its password masked. A server that goes
away for a while (a restart) is waited for: at connecting, by the heartbeat, and by writes that may be repeated.
"""

from __future__ import annotations

import fcntl
import random
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import sqlalchemy
from optuna import Study, logging
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from nas.core.errors import InputError

HEARTBEAT_S = 10
GRACE_S = 60  # after its last heartbeat a trial's worker is taken for dead
PATIENCE_S = 120.0  # that a server may be away
SQLITE_BUSY_S = 60.0  # that a file may be locked by another process
FIRST_TRIES = 8  # to make the tables, which others may be making at the same time
PAUSE_S = 0.2  # between two tries
_PASSING = ("08", "40", "55", "57")  # classes of SQL states: connection, conflict, not ready, shut down

T = TypeVar("T")


class PatientStorage(RDBStorage):
    """Optuna's storage; what may be written twice is, until a server that is away has come back.

    Without that the heartbeat's thread ends at the first lost connection, and the result of an evaluation is lost.
    """

    patience_s = PATIENCE_S  # 0 where the process is to end

    def record_heartbeat(self, trial_id: int) -> None:
        self._patiently(lambda: RDBStorage.record_heartbeat(self, trial_id))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._patiently(lambda: RDBStorage.set_trial_user_attr(self, trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._patiently(lambda: RDBStorage.set_trial_system_attr(self, trial_id, key, value))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        tried = False

        def tell() -> bool:
            nonlocal tried
            try:
                again, tried = tried, True
                return RDBStorage.set_trial_state_values(self, trial_id, state, values)
            except UpdateFinishedTrialError:
                if again and self.get_trial(trial_id).state == state:  # done by the first, whose answer was lost
                    return True
                raise

        return self._patiently(tell)

    def _patiently(self, write: Callable[[], T]) -> T:
        start = time.monotonic()
        while True:
            try:
                return write()
            except (StorageInternalError, SQLAlchemyError) as error:
                if not passes(error) or time.monotonic() - start > self.patience_s:
                    raise
                time.sleep(PAUSE_S)


def storage_url(storage: str | None, folder: str | Path) -> str:
    """The address given, or that of `study.db` in the run's folder."""
    return storage if storage is not None else f"sqlite:///{Path(folder).resolve() / 'study.db'}"


def masked(url: str) -> str:
    """An address without its password."""
    try:
        return sqlalchemy.make_url(url).difference_update_query(["password"]).render_as_string(hide_password=True)
    except (SQLAlchemyError, ValueError):
        scheme, found, _ = url.partition("://")
        return f"{scheme}://***" if found else "***"


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite address; None for a server, and for a database in memory."""
    made = _parsed(url)
    in_file = made.get_backend_name() == "sqlite" and made.database not in (None, "", ":memory:")
    return Path(str(made.database).removeprefix("file:")) if in_file else None


def open_storage(
    url: str,
    settle: Callable[[Study, FrozenTrial], None],
    *,
    heartbeat_s: int = HEARTBEAT_S,
    grace_s: int = GRACE_S,
) -> PatientStorage:
    """The storage of an address, with its tables; several processes may make them at once.

    `settle` is given the trials whose heartbeat has stopped, once they are failed.
    """
    file = sqlite_file(url)
    if file is not None and not file.parent.is_dir():
        raise InputError("the folder of the study's file does not exist", place=str(file.parent))
    address = _with_driver(url).replace("{", "{{").replace("}", "}}")  # Optuna takes it for a template
    options = {"pool_pre_ping": True} if file is None else {"connect_args": {"timeout": SQLITE_BUSY_S}}
    for left in reversed(range(FIRST_TRIES)):
        with storage_errors(url), quiet(), silent():
            try:
                storage = PatientStorage(
                    address,
                    engine_kwargs=options,
                    heartbeat_interval=heartbeat_s,
                    grace_period=grace_s,
                    heartbeat_stale_trial_callback=settle,
                )
            except ImportError:
                rule = "the driver of this storage is not installed; PostgreSQL needs psycopg"
                raise InputError(rule, value=masked(url)) from None
            except (SQLAlchemyError, StorageInternalError, AssertionError) as error:
                if not left or not _is_race(error):
                    raise
                time.sleep(random.uniform(0.5, 1.5) * PAUSE_S)
            else:
                if file is None:
                    sqlalchemy.event.listen(storage.engine, "do_connect", _connector(storage))
                return storage
    raise AssertionError("the last try returns or raises")


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turns what a database or its driver refuses into one InputError; other errors pass."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            raise
        raise InputError(f"the study's storage refuses ({reason})", place=masked(url)) from error


def refusal(error: BaseException) -> str | None:
    """What a database or its driver says, in one line; None for any other error."""
    for one in _chain(error):
        if isinstance(one, DBAPIError) and one.orig is not None:
            return " ".join(str(one.orig).split())
        if isinstance(one, SQLAlchemyError):
            return " ".join(str(one).split())
        if isinstance(one, RuntimeError) and "table schema" in str(one):
            return f"another version of Optuna made it: {one}"
    return "it cannot be read or written" if isinstance(error, StorageInternalError) else None


def passes(error: BaseException) -> bool:
    """Whether a server is away, restarts, or closed the connection: a matter of time. Never so for a file."""
    for one in _chain(error):
        if isinstance(one, DBAPIError) and not isinstance(one.orig, sqlite3.Error):
            state = getattr(one.orig, "sqlstate", None)
            lost = isinstance(one, sqlalchemy.exc.OperationalError) and (state is None or state[:2] in _PASSING)
            if one.connection_invalidated or lost:
                return True
    return False


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's notice that heartbeats are experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@contextmanager
def silent() -> Iterator[None]:
    """Without Optuna's lines for each trial."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


class Presence:
    """That a process of this machine works at a study in a file: a shared lock beside it, gone with the process."""

    def __init__(self, url: str):
        file = sqlite_file(url)
        self._path = None if file is None else file.with_name(f"{file.name}.lock")
        self._file: IO[str] | None = None

    def __enter__(self) -> Presence:
        if self._path is not None:
            try:
                self._file = open(self._path, "a")
            except OSError as error:
                raise InputError(f"the file cannot be written ({error.strerror})", place=str(self._path)) from None
            fcntl.flock(self._file, fcntl.LOCK_SH)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._file is not None:
            self._file.close()

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether nobody else is present, and keeps it so meanwhile; never known of a server."""
        if self._file is None:
            yield False
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = True
        except BlockingIOError:
            found = False
        try:
            yield found
        finally:
            fcntl.flock(self._file, fcntl.LOCK_SH)


def _parsed(url: str) -> sqlalchemy.URL:
    try:
        made = sqlalchemy.make_url(url)
        made.get_dialect()
    except (NoSuchModuleError, ImportError) as error:
        raise InputError(f"no such kind of storage ({error})", value=masked(url)) from None
    except (ArgumentError, ValueError):
        rule = "a storage is an address such as sqlite:////path/study.db or postgresql://user@host/name"
        raise InputError(rule, value=masked(url)) from None
    return made


def _with_driver(url: str) -> str:
    """The address, with psycopg named for PostgreSQL: older SQLAlchemy would take its predecessor."""
    made = _parsed(url)
    if made.drivername != "postgresql":
        return url
    return made.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def _connector(storage: PatientStorage) -> Callable[..., Any]:
    """Connects as the driver does, and again while the server is away."""

    def connect(dialect: Any, record: Any, arguments: Any, keywords: Any) -> Any:
        start = time.monotonic()
        while True:
            try:
                return dialect.loaded_dbapi.connect(*arguments, **keywords)
            except dialect.loaded_dbapi.OperationalError:
                if time.monotonic() - start > storage.patience_s:
                    raise
                time.sleep(PAUSE_S)

    return connect


def _is_race(error: BaseException) -> bool:
    """Whether another process made the same table, or its first row, in this moment."""
    text = " ".join(str(one).lower() for one in _chain(error))
    return any(sign in text for sign in ("already exists", "unique", "duplicate", "locked", "no such table"))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
