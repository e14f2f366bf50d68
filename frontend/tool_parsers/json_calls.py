"""Calls that are JSON objects with a name and arguments, as several formats have them."""

import json
from typing import ClassVar

from frontend.char_parser import Malformed, Script, Show
from frontend.tool_parsers.base import FormatParser

_KEYS = ("name", "arguments", "parameters", "id", "type")
_SCALAR_CHARS = frozenset("0123456789+-.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_JSON_CHARS = _SCALAR_CHARS | frozenset("{}[],: \t\r\n")  # outside of strings


class JsonCallParser(FormatParser):
    """Reads such objects; where they stand, a subclass knows."""

    only_known_names: ClassVar[bool] = False  # for formats whose calls look like any JSON

    def json_calls(self) -> Script[None]:
        """One call, or a list of them."""
        yield from self.read_space()
        if (yield from self.peek()) != "[":
            yield from self.json_call()
            return
        yield from self.read()
        separator = ","
        while separator == ",":
            yield from self.read_space()
            yield from self.json_call()
            yield from self.read_space()
            separator = yield from self.expect(",", "]")
            self.accept()

    def json_call(self) -> Script[None]:
        """One object."""
        yield from self.expect("{")
        yield from self.json_members()

    def json_members(self) -> Script[None]:
        """The object after its brace. It is a call as soon as its name is known and its arguments begin."""
        fields: dict[str, str] = {}  # the JSON text of each
        separator = ","
        while separator == ",":
            yield from self.read_space()
            key = yield from self._key()
            if key in fields:
                raise Malformed
            if key == "arguments" and "name" in fields:
                self._start(fields)
                yield from self._arguments()
                fields[key] = ""
            else:
                fields[key] = yield from self._json_text()
            yield from self.read_space()
            separator = yield from self.expect(",", "}")
        if not self.out.in_call:
            self._start(fields)
            self.out.arguments(fields.get("arguments", "{}"))
        self.end_call()

    def json_value(self, show: Show) -> Script[None]:
        """Any value. Only its extent is looked at: a model's mistakes within it are the client's to see."""
        first = yield from self.peek()
        if first == '"':
            yield from self._json_string(show)
        elif first in "{[":
            yield from self._json_nested(show)
        elif first in _SCALAR_CHARS:
            while (yield from self.peek()) in _SCALAR_CHARS:
                yield from self.read(show)
        else:
            raise Malformed

    def _key(self) -> Script[str]:
        yield from self.expect('"')
        key = yield from self.expect(*[f'{key}"' for key in _KEYS])
        yield from self.read_space()
        yield from self.expect(":")
        yield from self.read_space()
        return key[:-1].replace("parameters", "arguments")

    def _start(self, fields: dict[str, str]) -> None:
        name = _string(fields.get("name"))
        if not name or (self.only_known_names and name not in self.tools):
            raise Malformed
        self.start_call(name, _string(fields.get("id")))

    def _arguments(self) -> Script[None]:
        """Some models write them as a string that holds the JSON."""
        if (yield from self.peek()) != '"':
            yield from self.json_value(self.out.arguments)
            return
        text = yield from self._json_text()
        inner = _string(text)
        self.accept()
        self.out.arguments(text if inner is None else inner)

    def _json_text(self) -> Script[str]:
        """A value, held."""
        chars: list[str] = []

        def show(char: str) -> None:
            chars.append(char)
            self.hold(char)

        yield from self.json_value(show)
        return "".join(chars)

    def _json_string(self, show: Show) -> Script[None]:
        yield from self.read(show)
        while (char := (yield from self.read(show))) != '"':
            if char == "\\":
                yield from self.read(show)

    def _json_nested(self, show: Show) -> Script[None]:
        depth = 0
        while True:
            char = yield from self.peek()
            if char == '"':
                yield from self._json_string(show)
                continue
            if char not in _JSON_CHARS:
                raise Malformed
            yield from self.read(show)
            depth += (char in "{[") - (char in "}]")
            if depth == 0:
                return


def _string(text: str | None) -> str | None:
    """What a JSON string says; None for what is none."""
    try:
        value = json.loads(text or "null", strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, str) else None
