"""Bytes to a typed body, once, with an error that names the field and the limit. Knows no particular body."""

import re
import types
import typing
from functools import reduce
from operator import or_
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

from frontend.errors import invalid

Body = TypeVar("Body", bound=msgspec.Struct)

# Also matches a string that never ends, so that hostile input costs linear time; the decoder then complains.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = frozenset(b"[{")
_COMPLAINT = re.compile(r"(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)


class BodyDecoder(Generic[Body]):
    """Decodes one kind of body."""

    def __init__(self, kind: type[Body], *, max_depth: int, allow_unknown_fields: bool) -> None:
        self.kind: type[Body] = kind if allow_unknown_fields else _forbid_unknown_fields(kind)
        self._decoder = msgspec.json.Decoder(self.kind)
        self._max_depth = max_depth

    def decode(self, data: bytes) -> Body:
        """The body. Raises `ApiError` 400."""
        if _is_deeper(data, self._max_depth):
            raise invalid(None, f"The body is nested deeper than {self._max_depth} levels (--max-json-depth).")
        try:
            body: Body = self._decoder.decode(data)
            return body
        except msgspec.ValidationError as error:
            _complain(str(error))
        except (msgspec.DecodeError, RecursionError) as error:
            raise invalid(None, f"The body is no valid JSON: {error}.", code="invalid_json") from error
        except UnicodeDecodeError as error:
            raise invalid(None, f"The body is not UTF-8: {error.reason}.", code="invalid_utf8") from error


def _complain(text: str) -> NoReturn:
    match = _COMPLAINT.fullmatch(text)
    what, path = (match["what"], match["path"]) if match else (text, None)
    param = (path or "").replace("[...]", "").lstrip(".")
    if unknown := _UNKNOWN.fullmatch(what):
        name = _join(param, unknown[1])
        raise invalid(name, f"Unknown field {name}; leave it out, or start the server with --allow-unknown-fields.")
    if missing := _MISSING.fullmatch(what):
        name = _join(param, missing[1])
        raise invalid(name, f"The field {name} is required.")
    plain = what.replace("`", "").replace(" | ", " or ")
    raise invalid(param or None, f"{param or 'The body'}: {plain[:1].lower()}{plain[1:]}.")


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def _is_deeper(data: bytes, limit: int) -> bool:
    if data.count(b"[") + data.count(b"{") <= limit:
        return False
    depth = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in _OPENING else -1
        if depth > limit:
            return True
    return False


def _forbid_unknown_fields(kind: Any) -> Any:
    """The same record, and those within it, as records that refuse fields that they do not have."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        changed = []
        for field in msgspec.structs.fields(kind):
            strict = _forbid_unknown_fields(field.type)
            if strict is not field.type:
                changed.append((field.name, strict, field.default) if not field.required else (field.name, strict))
        return msgspec.defstruct(kind.__name__, changed, bases=(kind,), kw_only=True, forbid_unknown_fields=True)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType, list):
        strict_inner = tuple(_forbid_unknown_fields(arm) for arm in inner)
        if any(new is not old for new, old in zip(strict_inner, inner, strict=True)):
            return list[strict_inner] if origin is list else reduce(or_, strict_inner)  # type: ignore[valid-type]
    return kind
