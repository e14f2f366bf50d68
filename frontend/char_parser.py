"""Parsers of model output that are written as if all of the text were there, and read it one character at a time.

A script is a generator: each bare `yield` in it waits for a character. As it never learns how many of them are there
already, what it makes of a text cannot depend on the pieces in which the text came. It goes forward only, so that its
time is linear: what turns out not to be of the format is shown as text and not read again.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import TypeAlias, TypeVar

from frontend.message_parts import Part, PartWriter

T = TypeVar("T")
Script: TypeAlias = Generator[None, str, T]
Show: TypeAlias = Callable[[str], None]


class Malformed(Exception):
    """What comes next does not fit the format."""


class EndOfText(Exception):
    """No more characters will come."""


class CharParser(ABC):
    """Runs a script. What the script has read and found no meaning for yet is held; it becomes text if need be."""

    def __init__(self) -> None:
        """Begins the script: what it needs, a subclass sets before this."""
        self.out = PartWriter()
        self._held: list[str] = []
        self._ahead = ""  # at most one character, that was looked at and not read
        self._running = self.script()
        next(self._running)

    def push(self, text: str) -> list[Part]:
        """The parts that have become certain with this text."""
        for char in text:
            self._running.send(char)
        return self.out.take()

    def flush(self) -> list[Part]:
        """The rest, as no more text will come."""
        try:
            self._running.throw(EndOfText)
        except EndOfText:
            self.give_up()
            self.out.end()
        return self.out.take()

    @abstractmethod
    def script(self) -> Script[None]:
        """Reads, and writes to `out`, for ever."""

    # --- what was read -----------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """What is held was of the format."""
        self._held.clear()

    def give_up(self) -> None:
        """What is held was text after all, and a call that has begun ends before it."""
        if self.out.in_call:
            self.out.end_call()
        self.out.text(self.held_text())
        self._held.clear()

    def hold(self, char: str) -> None:
        """As something to show characters to: hold them."""
        self._held.append(char)

    def held_text(self) -> str:
        """All that is held."""
        return "".join(self._held)

    # --- reading -----------------------------------------------------------------------------------------------------

    def peek(self) -> Script[str]:
        """The next character, which stays the next."""
        if not self._ahead:
            self._ahead = yield
        return self._ahead

    def read(self, show: Show | None = None) -> Script[str]:
        """The next character; it is held unless it is shown."""
        char = yield from self.peek()
        self._ahead = ""
        (show or self.hold)(char)
        return char

    def read_space(self) -> Script[None]:
        """White space, if there is any."""
        while (yield from self.peek()).isspace():
            yield from self.read()

    def read_while(self, fits: Callable[[str], bool]) -> Script[str]:
        """All characters that fit, up to the first that does not."""
        chars = []
        while fits((yield from self.peek())):
            chars.append((yield from self.read()))
        return "".join(chars)

    def expect(self, *literals: str) -> Script[str]:
        """One of these, none of which begins another. Raises `Malformed` before the first character that fits none."""
        found = ""
        while found not in literals:
            longer = found + (yield from self.peek())
            if not any(literal.startswith(longer) for literal in literals):
                raise Malformed
            yield from self.read()
            found = longer
        return found

    def copy_until(self, show: Show, *markers: str) -> Script[str]:
        """Show all up to the first marker, which is held then; none of them begins another."""
        tail = ""
        try:
            while tail not in markers:
                tail += yield from self.peek()
                self._ahead = ""
                while tail and not any(marker.startswith(tail) for marker in markers):
                    show(tail[0])
                    tail = tail[1:]
        except EndOfText:
            for char in tail:
                show(char)
            raise
        self.hold(tail)
        return tail
