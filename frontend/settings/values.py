"""The kinds of value that a setting may hold: what is in range, how a person would call it, how text becomes one."""

import re
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

KIB, MIB, GIB = 1024, 1024**2, 1024**3
DAY_S = 24 * 3600

# The unit in `extra` is what --help shows in place of a value.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=4096, extra={"unit": "TEXT"})]
Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1, extra={"unit": "N"})]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=DAY_S, extra={"unit": "SECONDS"})]
MaybeNoSeconds = Annotated[float, msgspec.Meta(ge=0, le=DAY_S, extra={"unit": "SECONDS"})]
Fraction = Annotated[float, msgspec.Meta(gt=0, le=1, extra={"unit": "FRACTION"})]
Bytes = Annotated[int, msgspec.Meta(ge=KIB, le=2**50, extra={"unit": "BYTES"})]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

_BYTE_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": KIB, "MIB": MIB, "GIB": GIB}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Z]*)")


class SettingsError(ValueError):
    """The settings cannot be served: one sentence that names the setting, the limit and the way out."""


def from_text(text: str, kind: Any) -> Any:
    """What `text` means as a value of `kind`; raises `ValueError` where it means none."""
    kind = _without_none(kind)
    if get_origin(kind) is dict:
        return msgspec.json.decode(text, type=kind)
    if unit_of(kind) == "BYTES":
        text = _size_in_bytes(text)
    return msgspec.convert(text, kind, strict=False)


def describe(kind: Any) -> str:
    """What is accepted, in words that fit after "must be"."""
    kind = _without_none(kind)
    plain, meta = _split(kind)
    if get_origin(plain) is Literal:
        return "one of " + ", ".join(get_args(plain))
    if get_origin(plain) is tuple:
        return f"one or more values, each {describe(get_args(plain)[0])}"
    if get_origin(plain) is dict:
        return 'a JSON object such as {"temperature": 0.6}'
    if unit_of(kind) == "BYTES":
        return f"a size from {_bytes_in_words(meta.ge)} to {_bytes_in_words(meta.le)}"
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[plain]
    return words + _range(meta)


def in_words(value: object, kind: Any) -> str | None:
    """A default as --help shows it; None where there is nothing to show."""
    if value is None or value in ((), {}):
        return None
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and unit_of(kind) == "BYTES":
        return _bytes_in_words(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def element_of(kind: Any) -> Any:
    """The kind of a list's elements; None if `kind` is no list."""
    return get_args(kind)[0] if get_origin(kind) is tuple else None


def unit_of(kind: Any) -> str | None:
    """What --help shows in place of a value."""
    plain, meta = _split(_without_none(kind))
    if get_origin(plain) is Literal:
        return "{" + ",".join(get_args(plain)) + "}"
    if get_origin(plain) is dict:
        return "JSON"
    return meta.extra.get("unit") if meta and meta.extra else None


def _range(meta: msgspec.Meta | None) -> str:
    if meta is None:
        return ""
    if meta.pattern is not None:
        return f" that matches {meta.pattern}"
    if meta.max_length is not None:
        return f" of {meta.min_length or 0} to {meta.max_length} characters"
    if meta.gt is not None:
        return f" above {meta.gt:g} and at most {meta.le}"
    return f" from {meta.ge} to {meta.le}"


def _split(kind: Any) -> tuple[Any, Any]:
    if get_origin(kind) is Annotated:
        plain, *metas = get_args(kind)
        return plain, next((meta for meta in metas if isinstance(meta, msgspec.Meta)), None)
    return kind, None


def _without_none(kind: Any) -> Any:
    arms = [arm for arm in get_args(kind) if arm is not type(None)]
    return arms[0] if type(None) in get_args(kind) and len(arms) == 1 else kind


def _bytes_in_words(value: int) -> str:
    size, unit = next((size, unit) for size, unit in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")) if value % size == 0)
    return f"{value // size}{unit}"


def _size_in_bytes(text: str) -> str:
    match = _SIZE.fullmatch(text.strip().upper())
    if match is None or match[2] not in _BYTE_UNITS:
        raise ValueError(f"{text} is no size")
    return str(int(float(match[1]) * _BYTE_UNITS[match[2]]))
