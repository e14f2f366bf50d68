"""Mistral: after [TOOL_CALLS] a JSON list of calls, or, from tokenizer version 11 on, a bare name and its arguments.

The forms are those of https://github.com/mistralai/mistral-common (tokenizers v3 to v13) and of model cards, such as
https://huggingface.co/mistralai/Mistral-7B-Instruct-v0.3. Its chat templates want ids of nine letters and digits.
"""

import secrets
import string

from frontend.char_parser import Malformed, Script
from frontend.tool_parsers.base import is_name_char
from frontend.tool_parsers.json_calls import JsonCallParser

_ID_CHARS = string.ascii_letters + string.digits


class MistralParser(JsonCallParser):
    """`[TOOL_CALLS][{"name": "f", "arguments": {}}]`, `[TOOL_CALLS]f{}` or `[TOOL_CALLS]f[CALL_ID]x[ARGS]{}`"""

    begins = ("[TOOL_CALLS]",)
    special_tokens = ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]")

    def calls(self, marker: str) -> Script[None]:
        """In either form."""
        yield from self.read_space()
        if (yield from self.peek()) in "[{":
            yield from self.json_calls()
        else:
            yield from self._named_call()

    def _named_call(self) -> Script[None]:
        name = yield from self.read_while(is_name_char)
        call_id = None
        if (yield from self.peek()) == "[" and (yield from self.expect("[CALL_ID]", "[ARGS]")) == "[CALL_ID]":
            call_id = yield from self.read_while(is_name_char)
            yield from self.expect("[ARGS]")
        yield from self.read_space()
        if not name or (yield from self.peek()) != "{":
            raise Malformed
        self.start_call(name, call_id)
        yield from self.json_value(self.out.arguments)
        self.end_call()

    @staticmethod
    def new_call_id() -> str:
        """Nine letters and digits."""
        return "".join(secrets.choice(_ID_CHARS) for _ in range(9))
