"""What an assistant's message is made of as it comes: reasoning, text and tool calls. Knows no format and no HTTP."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Text:
    """More of what the user is to read."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A tool call begins; the one before it has ended."""

    name: str
    id: str | None = None  # where the model gives one


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the JSON text of the call's arguments."""

    text: str


@dataclass(frozen=True, slots=True)
class CallEnded:
    """Its arguments are complete, or as complete as they will ever be."""


Part: TypeAlias = Text | Reasoning | CallStarted | Arguments | CallEnded


class PartWriter:
    """Gathers characters to parts.

    White space beside a tool call or the reasoning belongs to the format and is left out. All other white space is
    text; it is held back until it is known what follows.
    """

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._kind: type[Text] | type[Reasoning] | type[Arguments] = Text
        self._chars: list[str] = []
        self._space: list[str] = []
        self._skips_space = False
        self.at_line_start = True  # nothing but white space stands before it in its line
        self.in_call = False
        self.after_call = False  # nothing but white space came since

    def text(self, chars: str) -> None:
        """More text."""
        self._visible(Text, chars)

    def reasoning(self, chars: str) -> None:
        """More reasoning."""
        self._visible(Reasoning, chars)

    def start_call(self, name: str, call_id: str | None = None) -> None:
        """Begin a call."""
        self.edge()
        self._parts.append(CallStarted(name, call_id))
        self.in_call = True

    def arguments(self, chars: str) -> None:
        """Of the call that has begun; every character counts."""
        self._become(Arguments)
        self._chars.append(chars)

    def end_call(self) -> None:
        """What follows is text, or another call."""
        self.edge()
        self._parts.append(CallEnded())
        self.in_call, self.after_call = False, True

    def edge(self) -> None:
        """Another part of the message begins here: white space on either side is no text."""
        self._space.clear()
        self._settle()
        self._skips_space = self.at_line_start = True

    def end(self) -> None:
        """The message ends here."""
        if self.in_call:
            self.end_call()
        self._show_space()

    def take(self) -> list[Part]:
        """What has come since the last time."""
        self._settle()
        parts, self._parts = self._parts, []
        return parts

    def _visible(self, kind: type[Text] | type[Reasoning], chars: str) -> None:
        for char in chars:
            if char.isspace():
                self.at_line_start |= char == "\n"
                if not self._skips_space:
                    self._space.append(char)
                continue
            self._become(kind)
            self._show_space()
            self._chars.append(char)
            self._skips_space = self.at_line_start = self.after_call = False

    def _become(self, kind: type[Text] | type[Reasoning] | type[Arguments]) -> None:
        if kind is not self._kind:
            self._settle()
            self._kind = kind

    def _show_space(self) -> None:
        self._chars += self._space
        self._space.clear()

    def _settle(self) -> None:
        if self._chars:
            self._parts.append(self._kind("".join(self._chars)))
            self._chars.clear()
