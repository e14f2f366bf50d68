"""Qwen3-Coder: each call is <function=NAME> with <parameter=NAME> elements, as a rule between <tool_call> tags.

The format is that of the chat template of https://huggingface.co/Qwen/Qwen3-Coder-30B-A3B-Instruct, which puts a
newline on either side of each value. A value has neither quotes nor a type: what it is, the tool's schema says.
"""

import json
from collections.abc import Mapping
from typing import Any

from frontend.char_parser import EndOfText, Malformed, Script, Show
from frontend.tool_parsers.base import FormatParser
from frontend.tool_parsers.schema_types import as_json, parameter_types

_STRING = frozenset({"string"})


class Qwen3XmlParser(FormatParser):
    """`<tool_call><function=f><parameter=city>Paris</parameter></function></tool_call>`"""

    begins = ("<tool_call>", "<function=")
    closes = ("</tool_call>",)
    special_tokens = ("<tool_call>", "</tool_call>")

    def calls(self, marker: str) -> Script[None]:
        """One function; the models leave out the outer tag at times."""
        if marker == "<tool_call>":
            yield from self.read_space()
            yield from self.expect("<function=")
        name = yield from self._name()
        self.start_call(name)
        self.out.arguments("{")
        try:
            yield from self._parameters(self.tools.get(name, {}))
        except Malformed:
            self.out.arguments("}")
            raise
        self.out.arguments("}")
        self.end_call()

    def _parameters(self, function: Mapping[str, Any]) -> Script[None]:
        before = ""
        yield from self.read_space()
        while (yield from self.expect("<parameter=", "</function>")) == "<parameter=":
            name = yield from self._name()
            self.accept()
            self.out.arguments(f"{before}{json.dumps(name, ensure_ascii=False)}: ")
            before = ", "
            types = parameter_types(function, name)
            yield from self._string() if types <= _STRING else self._value(types)
            self.accept()
            yield from self.read_space()

    def _string(self) -> Script[None]:
        """It can be shown as it comes."""
        self.out.arguments('"')
        value = _WithoutEdges(lambda char: self.out.arguments(json.dumps(char, ensure_ascii=False)[1:-1]))
        yield from self.copy_until(value.show, "</parameter>")
        self.out.arguments('"')

    def _value(self, types: frozenset[str]) -> Script[None]:
        """What it is depends on all of it."""
        chars: list[str] = []
        try:
            yield from self.copy_until(_WithoutEdges(chars.append).show, "</parameter>")
        except EndOfText:
            self.out.arguments(json.dumps("".join(chars), ensure_ascii=False)[:-1])
            raise
        self.out.arguments(as_json("".join(chars), types))

    def _name(self) -> Script[str]:
        name = yield from self.read_while(lambda char: char not in "<>\n")
        yield from self.expect(">")
        if not name:
            raise Malformed
        return name


class _WithoutEdges:
    """Shows all but one newline at the beginning and one at the end, which are the template's."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._at_start = True
        self._newline = ""  # held back

    def show(self, char: str) -> None:
        """The next character."""
        if self._newline:
            self._show(self._newline)
        self._newline = "\n" if char == "\n" and not self._at_start else ""
        self._at_start = False
        if char != "\n":
            self._show(char)
