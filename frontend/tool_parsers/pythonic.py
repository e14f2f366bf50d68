"""Llama 3.2 and 4, ToolACE, OLMo 3: a list of calls as Python would write it, at the beginning of a line.

The format is described in
https://github.com/meta-llama/llama-models/blob/main/models/llama3_2/text_prompt_format.md#zero-shot-function-calling;
Llama 4 puts <|python_start|> and <|python_end|> around it at times. Arguments become JSON as they come. As nothing
marks a list as one of calls, its first word must be a tool of the request.
"""

import json
import re

from frontend.char_parser import EndOfText, Malformed, Script
from frontend.tool_parsers.base import FormatParser, is_name_char

_START, _END = "<|python_start|>", "<|python_end|>"
_JSON_BRACKETS = {"[": "[", "(": "[", "{": "{", "]": "]", ")": "]", "}": "}"}
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_JSON_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_SAME_ESCAPES = frozenset('\\"bfnrtu')
_OTHER_ESCAPES = {"'": "'", "\n": "", "x": "\\u00", "0": "\\u0000"}


class PythonicParser(FormatParser):
    """`[f(city="Paris", days=3), g()]`"""

    begins = ("[", _START)
    closes = (_END,)
    special_tokens = (_START, _END)

    def calls(self, marker: str) -> Script[None]:
        """A list whose bracket may have been read already."""
        if marker == _START:
            yield from self.read_space()
            yield from self.expect("[")
        elif not self.out.at_line_start:
            raise Malformed
        separator = ","
        while separator == ",":
            yield from self.read_space()
            yield from self._call()
            yield from self.read_space()
            separator = yield from self.expect(",", "]")
            self.accept()

    def _call(self) -> Script[None]:
        name = yield from self.read_while(is_name_char)
        if name not in self.tools:
            raise Malformed
        yield from self.expect("(")
        yield from self.read_space()
        key = yield from self._key()
        self.start_call(name)
        self.out.arguments("{")
        try:
            yield from self._members(key)
        except Malformed:
            self.out.arguments("}")
            raise
        self.out.arguments("}")
        self.end_call()

    def _key(self) -> Script[str | None]:
        """The next parameter's name; None after the last."""
        if (yield from self.peek()) == ")":
            yield from self.read()
            return None
        key = yield from self.read_while(is_name_char)
        yield from self.read_space()
        yield from self.expect("=")
        return key

    def _members(self, key: str | None) -> Script[None]:
        before = ""
        while key is not None:
            self.accept()
            self.out.arguments(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
            before = ", "
            yield from self._value()
            key = None
            if (yield from self.expect(",", ")")) == ",":
                yield from self.read_space()
                key = yield from self._key()

    # --- values ------------------------------------------------------------------------------------------------------

    def _value(self) -> Script[None]:
        """Token by token, with the brackets that are to be closed on a stack: no nesting is too deep."""
        closing: list[str] = []
        yield from self._skip_space()
        yield from self._token(closing)
        yield from self._skip_space()
        while closing:
            yield from self._token(closing)
            yield from self._skip_space()

    def _skip_space(self) -> Script[None]:
        yield from self.read_space()
        self.accept()

    def _token(self, closing: list[str]) -> Script[None]:
        char = yield from self.peek()
        if char in "'\"":
            yield from self._string()
        elif char in _CLOSING:
            yield from self._punctuation(_JSON_BRACKETS[char])
            closing.append(_CLOSING[char])
        elif closing and char == closing[-1]:
            yield from self._punctuation(_JSON_BRACKETS[char])
            closing.pop()
        elif closing and char == ":":
            yield from self._punctuation(": ")
        elif closing and char == ",":
            yield from self._comma(closing[-1])
        else:
            yield from self._word()

    def _punctuation(self, shown: str) -> Script[None]:
        yield from self.read()
        self.accept()
        self.out.arguments(shown)

    def _comma(self, closing: str) -> Script[None]:
        """JSON has none after the last element."""
        yield from self._punctuation("")
        yield from self._skip_space()
        if (yield from self.peek()) != closing:
            self.out.arguments(", ")

    def _word(self) -> Script[None]:
        """A number or a constant; any other word is taken for a string."""
        chars: list[str] = []
        try:
            while is_name_char(char := (yield from self.peek())) or char == "+":
                yield from self.read(chars.append)
        except EndOfText:
            self.out.arguments('"' + "".join(chars))
            raise
        word = "".join(chars)
        if not word:
            raise Malformed
        if _NUMBER.fullmatch(word):
            self.out.arguments(word)
        else:
            self.out.arguments(_JSON_WORDS.get(word) or json.dumps(word, ensure_ascii=False))

    def _string(self) -> Script[None]:
        """In one or in three quotes of either kind."""
        quote = yield from self.read()
        self.accept()
        self.out.arguments('"')
        num_quotes = 1
        while num_quotes < 3 and (yield from self.peek()) == quote:
            yield from self.read(_drop)
            num_quotes += 1
        if num_quotes != 2:  # two are an empty string
            yield from self._string_until(quote, num_quotes)
        self.out.arguments('"')

    def _string_until(self, quote: str, num_quotes: int) -> Script[None]:
        num_seen = 0
        while num_seen < num_quotes:
            char = yield from self.read(_drop)
            if char == quote:
                num_seen += 1
                continue
            self.out.arguments(_in_json(quote) * num_seen)
            num_seen = 0
            if char == "\\":
                yield from self._escape()
            else:
                self.out.arguments(_in_json(char))

    def _escape(self) -> Script[None]:
        """Python's escapes are JSON's but for a few; the digits after \\x and \\u are ordinary characters here."""
        char = yield from self.read(_drop)
        if char in _SAME_ESCAPES:
            self.out.arguments("\\" + char)
        elif char in _OTHER_ESCAPES:
            self.out.arguments(_OTHER_ESCAPES[char])
        else:  # none: then the backslash stands for itself
            self.out.arguments("\\\\" + _in_json(char))


def _in_json(char: str) -> str:
    return json.dumps(char, ensure_ascii=False)[1:-1]


def _drop(char: str) -> None:
    """It has been understood."""
