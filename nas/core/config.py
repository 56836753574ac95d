"""Configurations of doors: a model filled from a YAML file, `--set key=value` and flags, each over the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from nas.core.errors import InputError, nearest
from nas.core.yamlfile import load_yaml, parse_yaml


class Strict(BaseModel):
    """A model that refuses unknown keys, text for numbers, and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


M = TypeVar("M", bound=Strict)


def resolve(
    model: type[M],
    path: str | None,
    sets: Sequence[str],
    flags: Mapping[str, Any],
    base: Mapping[str, Any] | None = None,
) -> M:
    """The configuration; InputError names the file or option, the key, the rule, and the nearest keys.

    Flags that are None were not given. `--set a.b=1` reads the value as YAML. `base` holds what is below all: values
    of an earlier run, in place of the model's own.
    """
    values: dict[str, Any] = dict(base or {})
    if path is not None:
        document = load_yaml(path)
        if not isinstance(document, dict):
            raise InputError("a configuration is a mapping of keys to values", place=path)
        values = _merged(values, document)
        _checked(model, values, path)  # so that a mistake of the file is told as one
    for text in sets:
        values = _merged(values, _assignment(text))
        _checked(model, values, f"--set {text}")
    given = {key: value for key, value in flags.items() if value is not None}
    return _checked(model, _merged(values, given), "the configuration")


def _assignment(text: str) -> dict[str, Any]:
    """`a.b=1` as {"a": {"b": 1}}."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise InputError("an assignment is key=value", value=text, place="--set")
    made: Any = parse_yaml(value, f"--set {key}")
    for part in reversed(key.strip().split(".")):
        made = {part: made}
    assert isinstance(made, dict)
    return made


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key, anything else is replaced."""
    made = dict(old)
    for key, value in new.items():
        before = made.get(key)
        made[key] = _merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return made


def _checked(model: type[M], values: Mapping[str, Any], place: str) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _keys(model, first["loc"][:-1])
            raise InputError("unknown key", where, place, nearest(first["loc"][-1], known)) from None
        raise InputError(_rule(first["msg"]), first["input"], f"{place}: {where}") from None


def _rule(message: str) -> str:
    """pydantic's words as the rule of an error."""
    text = message.removeprefix("Value error, ").removeprefix("Input should be ")
    return text if text != message else message[0].lower() + message[1:]


def _keys(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The keys of the model, or of the model that lies at a path in it."""
    for part in path:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field is not None else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)
