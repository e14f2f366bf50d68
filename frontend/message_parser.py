"""One choice's text as the parts of a message: what the reasoning parser leaves as text goes to the tool parser."""

from frontend.message_parts import CallStarted, Part, Text
from frontend.reasoning_parsers import ReasoningParser
from frontend.tool_parsers import ToolParser


class MessageParser:
    """Either of the two may be missing. `one_call`: later calls of the message are left out."""

    def __init__(self, reasoning: ReasoningParser | None, tools: ToolParser | None, *, one_call: bool) -> None:
        self._reasoning = reasoning
        self._tools = tools
        self._one_call = one_call
        self._num_calls = 0

    def push(self, text: str) -> list[Part]:
        """More text of the answer."""
        return self._allowed(self._in_tools([Text(text)] if self._reasoning is None else self._reasoning.push(text)))

    def flush(self) -> list[Part]:
        """No more will come."""
        parts = self._in_tools([] if self._reasoning is None else self._reasoning.flush())
        return self._allowed(parts + ([] if self._tools is None else self._tools.flush()))

    def new_call_id(self) -> str:
        """Of the form that the model's template wants."""
        assert self._tools is not None
        return self._tools.new_call_id()

    def _in_tools(self, parts: list[Part]) -> list[Part]:
        if self._tools is None:
            return parts
        found: list[Part] = []
        for part in parts:
            found += self._tools.push(part.text) if isinstance(part, Text) else [part]
        return found

    def _allowed(self, parts: list[Part]) -> list[Part]:
        if not self._one_call:
            return parts
        kept: list[Part] = []
        for part in parts:
            self._num_calls += isinstance(part, CallStarted)
            if self._num_calls <= 1 or isinstance(part, Text):
                kept.append(part)
        return kept
