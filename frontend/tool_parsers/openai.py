"""gpt-oss: the harmony format, in which each message says in its header to whom it goes.

The format is described in https://github.com/openai/harmony/blob/main/docs/format.md. A recipient stands in the role or
in the channel of the header; the prompt ends after the role, so that an answer may begin with either. The channel
`analysis` is reasoning, so that this parser needs no reasoning parser beside it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from frontend.char_parser import CharParser, Malformed, Script, Show
from frontend.tool_parsers.base import ToolParser

_START, _CHANNEL, _MESSAGE, _CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>")
_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")
_ANALYSIS = re.compile(r"<\|channel\|>\s*analysis\b")
_MAX_HEADER_CHARS = 512


class OpenAIParser(CharParser, ToolParser):
    """`<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>`"""

    special_tokens = (_START, _CHANNEL, _MESSAGE, _CONSTRAIN, *_ENDS)

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()

    def script(self) -> Script[None]:
        """Messages one after the other; what has no header is text."""
        begin = ""
        while True:
            try:
                yield from self._message(begin)
            except Malformed:
                self.give_up()
            begin = yield from self.copy_until(self.out.text, _START, _CHANNEL, *_ENDS)

    def _message(self, begin: str) -> Script[None]:
        """`begin`: the marker that is held; empty at the beginning of the answer."""
        if begin in _ENDS:
            self.accept()
            return
        if not begin:
            yield from self.read_space()
            begin = yield from self.expect(_CHANNEL, "to=", _START)
        header = begin + (yield from self._header())
        self.accept()
        self.out.edge()
        if recipient := _RECIPIENT.search(header):
            self.out.start_call(recipient[1])
            yield from self._body(self.out.arguments)
            self.out.end_call()
        else:
            yield from self._body(self.out.reasoning if _ANALYSIS.search(header) else self.out.text)
            self.out.edge()

    def _header(self) -> Script[str]:
        chars: list[str] = []
        while "".join(chars[-len(_MESSAGE) :]) != _MESSAGE:
            if len(chars) > _MAX_HEADER_CHARS:
                raise Malformed
            chars.append((yield from self.read()))
        return "".join(chars)

    def _body(self, show: Show) -> Script[None]:
        yield from self.copy_until(show, *_ENDS)
        self.accept()
