"""Answers of POST /v1/chat/completions whose text is parsed for tool calls or reasoning: chunks and whole."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import UNSET

from frontend.message_parser import MessageParser
from frontend.message_parts import Arguments, CallStarted, Part, Reasoning, Text
from frontend.openai_bodies.answers import AssistantMessage, ChatChoice, MadeToolCall, Usage
from frontend.request import Delta, FinishReason
from frontend.tokenizer import Tokenizer
from frontend.translate.answer import AnswerFacts, Choice, to_json
from frontend.translate.chat_answer import ChatFormat
from frontend.translate.prompt_fields import PromptFacts


class ParsedChatFormat(ChatFormat):
    """As `ChatFormat`, with a parser for each choice."""

    def __init__(
        self,
        facts: AnswerFacts,
        tokenizer: Tokenizer,
        prompt: PromptFacts,
        *,
        make_parser: Callable[[], MessageParser],
        num_choices: int,
        num_top: int | None,
        num_prompt_top: int | None,
    ) -> None:
        super().__init__(
            facts, tokenizer, prompt, num_choices=num_choices, num_top=num_top, num_prompt_top=num_prompt_top
        )
        self._messages = [_Message(make_parser()) for _ in range(num_choices)]

    def chunk(self, delta: Delta, usage: Usage | None) -> bytes:
        message, ends = self._messages[delta.choice], delta.finish_reason is not None
        fields = message.read(delta.text, ends=ends)
        if not (fields or ends or self._num_top is not None or self._facts.return_token_ids):
            return b""
        logprobs = to_json(self._logprobs(delta.logprobs or []))
        told = replace(delta, finish_reason=message.finish_reason(delta.finish_reason))
        return self._bytes.prefixes[delta.choice] + to_json(fields)[1:] + self._bytes.end(told, logprobs, usage)

    def around_text(self, choice: int) -> None:
        """Each piece of text is looked at."""

    def _choice(self, index: int, choice: Choice) -> ChatChoice:
        message = self._messages[index]
        fields = message.read(choice.text, ends=True)
        plain = super()._choice(index, choice)
        plain.finish_reason = message.finish_reason(choice.finish_reason)
        reasoning, calls = fields.get("reasoning", UNSET), fields.get("tool_calls", [])
        plain.message = AssistantMessage(
            content=self._prompt.text + fields.get("content", "") or (None if fields else ""),
            reasoning_content=reasoning,
            reasoning=reasoning,
            tool_calls=msgspec.convert(calls, list[MadeToolCall]) if calls else UNSET,
        )
        return plain


class _Message:
    """One choice's parser, and its tool calls numbered."""

    def __init__(self, parser: MessageParser) -> None:
        self._parser = parser
        self._num_calls = 0

    def read(self, text: str, *, ends: bool) -> dict[str, Any]:
        """What the text adds to the message, as the `delta` of one chunk."""
        parts = self._parser.push(text) + (self._parser.flush() if ends else [])
        fields: dict[str, Any] = {}
        calls: dict[int, dict[str, Any]] = {}
        for part in parts:
            self._add(part, fields, calls)
        return fields | ({"tool_calls": list(calls.values())} if calls else {})

    def finish_reason(self, reason: FinishReason | None) -> FinishReason | None:
        """A message that ends by itself after a call ends for the call."""
        return "tool_calls" if reason == "stop" and self._num_calls else reason

    def _add(self, part: Part, fields: dict[str, Any], calls: dict[int, dict[str, Any]]) -> None:
        match part:
            case Text(text):
                fields["content"] = fields.get("content", "") + text
            case Reasoning(text):
                # the name that DeepSeek gave it, and the one that newer clients read
                fields["reasoning_content"] = fields["reasoning"] = fields.get("reasoning", "") + text
            case CallStarted(name, call_id):
                function = {"name": name, "arguments": ""}
                call_id = call_id or self._parser.new_call_id()
                index, self._num_calls = self._num_calls, self._num_calls + 1
                calls[index] = {"index": index, "id": call_id, "type": "function", "function": function}
            case Arguments(text):
                index = self._num_calls - 1
                call = calls.setdefault(index, {"index": index, "function": {"arguments": ""}})
                call["function"]["arguments"] += text
            case _:
                pass  # a call's end is told by what follows it
