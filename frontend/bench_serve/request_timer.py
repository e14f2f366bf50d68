"""One measured request: notes when its events arrive, and makes a `Sample` of it. It knows no other request."""

import time

from frontend.bench_serve.messages import Sample
from frontend.client.answers import DONE, ChunkChoice, Usage, decode_chunk, refusal
from frontend.client.connection import ClientError
from frontend.client.http_client import Answer


class RequestTimer:
    """Takes the events of one stream as they come."""

    def __init__(self, *, start_s: float, due_s: float) -> None:
        self._start_s = start_s
        self._due_s = due_s
        self._first_s: float | None = None
        self._last_output_s = 0.0
        self._last_s = 0.0
        self._gaps_s: list[float] = []
        self._usage: Usage | None = None
        self._done = False

    def on_event(self, event: bytes) -> None:
        """Raises `ClientError` for an event that tells of an error."""
        now = time.monotonic() - self._start_s
        if event == DONE:
            self._done = True
            return
        chunk = decode_chunk(event)
        self._usage = chunk.usage or self._usage
        if not chunk.choices:
            return
        self._last_s = now
        if any(map(_holds_output, chunk.choices)):
            self._note_output(now)

    def _note_output(self, now: float) -> None:
        if self._first_s is None:
            self._first_s = now
        else:
            self._gaps_s.append(now - self._last_output_s)
        self._last_output_s = now

    def sample(self, answer: Answer) -> Sample:
        """What was measured. Raises `ClientError` when the answer is not a whole stream with its usage."""
        if answer.status != 200 or not answer.streamed:
            raise ClientError(refusal(answer))
        if not self._done:
            raise ClientError("the stream ended without [DONE]")
        if self._usage is None:
            raise ClientError("the endpoint sent no usage, so that nothing can be counted")
        return Sample(
            due_s=self._due_s,
            first_s=self._last_s if self._first_s is None else self._first_s,
            last_s=self._last_s,
            end_s=time.monotonic() - self._start_s,
            gaps_s=self._gaps_s,
            prompt_tokens=self._usage.prompt_tokens,
            output_tokens=self._usage.completion_tokens,
        )

    def failed(self, error: str) -> Sample:
        """The request ended without a whole answer."""
        return Sample(due_s=self._due_s, end_s=time.monotonic() - self._start_s, error=error)


def _holds_output(choice: ChunkChoice) -> bool:
    """Whether the event stands for tokens. Text may be empty (half a character is held back by the server), but the
    opening of a chat that only names the role stands for none, nor does an empty event with the finish reason."""
    text = choice.text if choice.delta is None else choice.delta.content
    names_role_only = choice.delta is not None and choice.delta.role is not None
    return bool(text) or not (names_role_only or choice.finish_reason is not None)
