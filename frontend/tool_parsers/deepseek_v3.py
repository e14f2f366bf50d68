"""DeepSeek V3, R1 and V3.1: calls between special tokens, with the arguments in a fenced block or, in V3.1, bare.

The forms are those of the chat templates of https://huggingface.co/deepseek-ai/DeepSeek-V3-0324 and
https://huggingface.co/deepseek-ai/DeepSeek-V3.1. R1 leaves out the outer pair of tokens at times.
"""

from frontend.char_parser import Malformed, Script
from frontend.tool_parsers.base import is_name_char
from frontend.tool_parsers.json_calls import JsonCallParser

_CALLS = "<｜tool▁calls▁begin｜>"
_CALL = "<｜tool▁call▁begin｜>"
_SEPARATOR = "<｜tool▁sep｜>"
_CALL_END = "<｜tool▁call▁end｜>"
_CALLS_END = "<｜tool▁calls▁end｜>"
_FENCE = "```"


class DeepSeekV3Parser(JsonCallParser):
    """`CALLS CALL function SEPARATOR f \\n```json\\n{}\\n``` CALL_END CALLS_END`, or `CALL f SEPARATOR {} CALL_END`"""

    begins = (_CALLS, _CALL)
    closes = (_FENCE, _CALL_END, _CALLS_END)
    special_tokens = (_CALLS, _CALL, _SEPARATOR, _CALL_END, _CALLS_END)

    def calls(self, marker: str) -> Script[None]:
        """One call; the next one has a marker of its own."""
        if marker == _CALLS:
            yield from self.read_space()
            yield from self.expect(_CALL)
        name = yield from self._word()
        yield from self.expect(_SEPARATOR)
        yield from self.read_space()
        if (yield from self.peek()) != "{":  # then what was read is the kind of tool, which is always "function"
            name = yield from self._word()
            yield from self.expect(_FENCE)
            yield from self.expect("json")
            yield from self.read_space()
        if not name or (yield from self.peek()) != "{":
            raise Malformed
        self.start_call(name)
        yield from self.json_value(self.out.arguments)
        self.end_call()

    def _word(self) -> Script[str]:
        yield from self.read_space()
        word = yield from self.read_while(is_name_char)
        yield from self.read_space()
        return word
