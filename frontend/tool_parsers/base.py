"""What a tool parser is, and the loop that those of this package share."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from frontend.char_parser import CharParser, Malformed, Script
from frontend.message_parts import Part


class ToolParser(ABC):
    """Finds the tool calls in one choice's text. Each choice has its own."""

    special_tokens: ClassVar[tuple[str, ...]] = ()  # what the format may write as special tokens: they must be shown

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        """`tools`: as in a request's body."""
        self.tools = {str(tool["function"]["name"]): tool["function"] for tool in tools}

    @abstractmethod
    def push(self, text: str) -> list[Part]:
        """More text came: the parts that are certain now. It never raises, and no text is lost."""

    @abstractmethod
    def flush(self) -> list[Part]:
        """No more will come: the rest of the parts."""

    @staticmethod
    def new_call_id() -> str:
        """For a call to which the model gave no id."""
        return f"call_{secrets.token_hex(12)}"


class FormatParser(CharParser, ToolParser):
    """A parser of calls that begin with one of a few markers and hold nothing but their name and arguments."""

    begins: ClassVar[tuple[str, ...]]  # what a call, or a list of calls, begins with
    closes: ClassVar[tuple[str, ...]] = ()  # what may stand after a call and then is no text

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        ToolParser.__init__(self, tools)
        CharParser.__init__(self)

    @abstractmethod
    def calls(self, marker: str) -> Script[None]:
        """Read what follows the marker, which is held. Raises `Malformed` where it is no call."""

    def script(self) -> Script[None]:
        """Text, and calls between it."""
        while True:
            marker = yield from self.copy_until(self.out.text, *self.begins, *self.closes)
            try:
                if marker in self.begins:
                    yield from self.calls(marker)
                elif self.out.after_call:
                    self.accept()
            except Malformed:
                pass
            self.give_up()

    def start_call(self, name: str, call_id: str | None = None) -> None:
        """What is held has been understood as the beginning of a call."""
        self.accept()
        self.out.start_call(name, call_id)

    def end_call(self) -> None:
        """What is held has been understood as its end."""
        self.accept()
        self.out.end_call()


def is_name_char(char: str) -> bool:
    """Whether a function's name may hold it, in the formats that put no quotes around names."""
    return char.isalnum() or char in "_-."
