"""What one answer's chunks and whole body have in common, whichever route gives it. Knows no route."""

from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from frontend.openai_bodies.answers import PromptTokensDetails, Usage
from frontend.request import Delta, FinishReason, TokenLogprob

to_json = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFacts:
    """What is known of an answer before its first token."""

    id: str
    created: int
    model: str
    fingerprint: str
    include_usage: bool = False
    return_token_ids: bool = False


@dataclass(slots=True)
class Choice:
    """One choice, gathered."""

    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None

    def add(self, delta: Delta) -> None:
        """Append what a delta says."""
        self.texts.append(delta.text)
        self.token_ids += delta.token_ids
        self.logprobs += delta.logprobs or ()
        if delta.finish_reason is not None:
            self.finish_reason, self.stop_reason = delta.finish_reason, delta.stop_reason

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.texts)


class AnswerFormat(Protocol):
    """How one route writes its answers. Choices are numbered over all prompts."""

    def opening(self, choice: int) -> bytes:
        """The events that come before a choice's first delta."""

    def chunk(self, delta: Delta, usage: Usage | None) -> bytes:
        """The event of a delta; b"" where it tells a client nothing. `usage` where each chunk is to carry it."""

    def around_text(self, choice: int) -> tuple[bytes, bytes] | None:
        """What stands before and after the text in a `chunk` that is text alone; None where each tells more."""

    def usage_chunk(self, usage: Usage) -> bytes:
        """The last event, where usage is to be included."""

    def whole(self, choices: list[Choice], usage: Usage) -> bytes:
        """The body of an answer that is not streamed."""


class ChunkBytes:
    """The bytes around a chunk's content: encoded once an answer, so that a token costs its own text only."""

    def __init__(self, facts: AnswerFacts, *, object_name: str, num_choices: int, content_key: bytes) -> None:
        self._facts = facts
        head = {
            "id": facts.id,
            "object": object_name,
            "created": facts.created,
            "model": facts.model,
            "system_fingerprint": facts.fingerprint,
        }
        self._head = b"data: " + to_json(head)[:-1] + b',"choices":['
        # OpenAI: with include_usage every chunk has the field, null in all but the last.
        self._tail = b',"usage":null}\n\n' if facts.include_usage else b"}\n\n"
        self.prefixes = [self._head + b'{"index":%d,' % index + content_key for index in range(num_choices)]
        self.plain_end = b',"logprobs":null,"finish_reason":null}]' + self._tail

    def end(self, delta: Delta, logprobs: bytes, usage: Usage | None) -> bytes:
        """What follows the content of a delta that is more than plain text."""
        choice = b',"logprobs":%b,"finish_reason":%b' % (logprobs, to_json(delta.finish_reason))
        if delta.finish_reason is not None:
            choice += b',"stop_reason":' + to_json(delta.stop_reason)
        if self._facts.return_token_ids:
            choice += b',"token_ids":' + to_json(delta.token_ids)
        return choice + b"}]" + (self._tail if usage is None else b',"usage":%b}\n\n' % to_json(usage))

    def opening_end(self, *, logprobs: bytes = b"null", of_choice: bytes = b"", of_answer: bytes = b"") -> bytes:
        """What follows the content of a choice's first event; further fields begin with a comma."""
        return b',"logprobs":%b,"finish_reason":null%b}]%b' % (logprobs, of_choice, of_answer) + self._tail

    def usage(self, usage: Usage) -> bytes:
        """The chunk without choices."""
        return self._head + b'],"usage":%b}\n\n' % to_json(usage)


def to_usage(*, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> Usage:
    """OpenAI's record of it."""
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached_tokens),
    )
