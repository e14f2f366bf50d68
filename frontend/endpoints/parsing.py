"""Which parsers an answer of POST /v1/chat/completions goes through: most go through none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from frontend.message_parser import MessageParser
from frontend.model_text import ModelText
from frontend.openai_bodies.chat import ChatBody


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsing:
    """How one answer is parsed."""

    make_parser: Callable[[], MessageParser]  # for each choice
    shows_special_tokens: bool  # a parser must see them; then they are in the text


def choose_parsers(text: ModelText, body: ChatBody, tools: list[dict[str, Any]], *, prompt: str) -> Parsing | None:
    """None: what the model writes is the answer as it is."""
    tool_parser, reasoning_parser = text.tool_parser if tools else None, text.reasoning_parser
    if tool_parser is None and reasoning_parser is None:
        return None
    special = [token for parser in (tool_parser, reasoning_parser) if parser for token in parser.special_tokens]

    def make_parser() -> MessageParser:
        return MessageParser(
            None if reasoning_parser is None else reasoning_parser(prompt, continues=bool(body.continue_final_message)),
            None if tool_parser is None else tool_parser(tools),
            one_call=body.parallel_tool_calls is False,
        )

    return Parsing(make_parser=make_parser, shows_special_tokens=text.tokenizer.has_special(special))
