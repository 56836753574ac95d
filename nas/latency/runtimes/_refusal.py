"""How a runtime refuses: whatever it raises becomes Unsupported with one line, except that memory ran out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nas.latency.isolated import one_line, tells_of_memory
from nas.latency.runtimes import Unsupported

if TYPE_CHECKING:
    from nas.latency.target import Target


@contextmanager
def refusing(step: str) -> Iterator[None]:
    """Errors inside become `Unsupported("step: reason")`, with the error as cause; lack of memory passes through."""
    try:
        yield
    except Unsupported:
        raise
    except Exception as error:
        if _lacks_memory(error):
            raise
        raise Unsupported(one_line(f"{step}: {_reason(error)}")) from error


def refuse_flags(target: Target) -> None:
    """Memory format and CUDA graphs are torch's; a row must not say what was not done."""
    if target.channels_last or target.graph:
        raise Unsupported(f"channels_last and graph are settings of torch's runtimes, {target.runtime} has none")


def _lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it was raised from, is lack of memory."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, MemoryError) or tells_of_memory(str(error)):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _reason(error: BaseException) -> str:
    """Type and telling line of what it all came of: of a summary (OpenVINO's) its first line, else the first that is
    not a heading."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    _, *summary = lines[lines.index("Summary:") :] if "Summary:" in lines else [""]
    telling = summary + [line for line in lines if not line.endswith(":")] + lines
    return ": ".join([type(error).__name__, *(line.removeprefix("-- ") for line in telling[:1])])
