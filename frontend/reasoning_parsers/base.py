"""What a reasoning parser is: reasoning between <think> and </think>, then the answer."""

from typing import ClassVar

from frontend.char_parser import CharParser, EndOfText, Malformed, Script

BEGIN, END = "<think>", "</think>"


class ReasoningParser(CharParser):
    """One choice's text; where the prompt has opened or closed the reasoning, the model does not do it again."""

    special_tokens: ClassVar[tuple[str, ...]] = (BEGIN, END)
    thinks_unasked: ClassVar[bool]  # whether an answer is reasoning from its beginning, without <think>

    def __init__(self, prompt: str, *, continues: bool = False) -> None:
        """`continues`: the prompt ends within the answer, which thinks only if it has not closed what it opened."""
        end = prompt.rstrip()
        if continues:
            self._thinks = end.rfind(BEGIN) > end.rfind(END)
        else:
            self._thinks = end.endswith(BEGIN) or (self.thinks_unasked and not end.endswith(END))
        super().__init__()

    def script(self) -> Script[None]:
        """Reasoning, if there is any, and then text to the end."""
        try:
            yield from self.read_space()
            yield from self.expect(BEGIN)
            self._thinks = True
        except Malformed:
            pass
        except EndOfText:
            if self._thinks:
                self.accept()
            raise
        if self._thinks:
            yield from self._reasoning()
        self.give_up()
        yield from self.copy_until(self.out.text)

    def _reasoning(self) -> Script[None]:
        held = self.held_text()
        self.accept()
        self.out.edge()
        if held.strip() != BEGIN:
            self.out.reasoning(held)
        yield from self.copy_until(self.out.reasoning, END)
        self.accept()
        self.out.edge()
