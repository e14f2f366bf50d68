"""One row under way: from the engine's tokens to deltas of text. Ends exactly once; knows no socket and no HTTP."""

from collections.abc import Sequence
from typing import Protocol

from frontend.errors import ApiError, internal
from frontend.journal import Journal
from frontend.request import Delta, FinishReason, TokenLogprob
from protocol.errors import PeerError
from protocol.lifecycle import Row, RowEvent, next_row
from protocol.messages import Finish, PromptLogprobs

MAX_FRUITLESS_ATTEMPTS = 8  # in a row; most rows that lose a connection without a token only waited
_REASONS: dict[int, FinishReason] = {Finish.EOS: "stop", Finish.STOP_TOKEN: "stop", Finish.LENGTH: "length"}
_STOPS = frozenset({Finish.EOS, Finish.STOP_TOKEN})


class TextDecoder(Protocol):
    """`frontend.detokenizer.Detokenizer`, as far as a row needs it."""

    def push(self, token_ids: Sequence[int]) -> str: ...

    def flush(self) -> str: ...


class StopSearch(Protocol):
    """`frontend.stop_strings.StopChecker`, as far as a row needs it."""

    def push(self, text: str) -> tuple[str, str | None]: ...

    def flush(self) -> str: ...


class RowListener(Protocol):
    """Who is told what becomes of a row: its generation."""

    def on_delta(self, delta: Delta, now: float) -> None: ...

    def on_started(self, num_cached: int) -> None: ...

    def on_prompt_logprobs(self, message: PromptLogprobs) -> None: ...

    def on_row_failed(self, error: ApiError) -> None: ...


class TokenStream:
    """One choice of one request. Its state is the protocol's: once it is not OPEN, its listener hears nothing more."""

    __slots__ = ("_decoder", "_keep_stop", "_listener", "_min_tokens", "_stops", "journal", "state")

    def __init__(
        self,
        journal: Journal,
        *,
        decoder: TextDecoder,
        stops: StopSearch | None,
        min_tokens: int,
        include_stop: bool,
        listener: RowListener,
    ) -> None:
        self.journal = journal
        self.state = Row.OPEN
        self._decoder = decoder
        self._stops = stops
        self._min_tokens = min_tokens
        self._keep_stop = include_stop
        self._listener = listener

    def push(self, token: int, finish: int, now: float, logprob: TokenLogprob | None = None) -> bool:
        """One token of a step. True: a stop string ended the row here, and the engine is to be told."""
        if finish or self._stops is not None or self.state is not Row.OPEN:
            return self._push_carefully(token, finish, now, logprob)
        self.journal.outputs.append(token)
        logprobs = None if logprob is None else [logprob]
        text = self._decoder.push((token,))
        delta = Delta(choice=self.journal.choice, text=text, token_ids=[token], logprobs=logprobs)
        self._listener.on_delta(delta, now)
        return False

    def _push_carefully(self, token: int, finish: int, now: float, logprob: TokenLogprob | None) -> bool:
        """The row ends with this token, might end within its text, or has ended here already."""
        if self.state is not Row.OPEN:
            self.state = next_row(self.state, RowEvent.FINISH if finish else RowEvent.OUTPUT)
            return False
        if finish and finish not in _REASONS:
            raise PeerError(f"row {self.journal.number} ended by {finish}, which nobody asked for")
        self.journal.outputs.append(token)
        text, hit = self._search(self._decode(token, finish))
        reason, stop_reason = _REASONS.get(finish), token if finish == Finish.STOP_TOKEN else hit
        if hit is not None:
            reason, stop_reason = "stop", hit
        elif finish and self._stops is not None:
            text += self._stops.flush()
        if reason is not None:
            self.state = next_row(self.state, RowEvent.FINISH if finish else RowEvent.ABORT)
        delta = Delta(
            choice=self.journal.choice,
            text=text,
            token_ids=[token],
            logprobs=None if logprob is None else [logprob],
            finish_reason=reason,
            stop_reason=stop_reason,
        )
        self._listener.on_delta(delta, now)
        return hit is not None and not finish

    def _decode(self, token: int, finish: int) -> str:
        """The token's text; that of a stop token only where it was asked for."""
        text = "" if finish in _STOPS and not self._keep_stop else self._decoder.push((token,))
        return text + self._decoder.flush() if finish else text

    def _search(self, text: str) -> tuple[str, str | None]:
        """Stop strings count only in what comes after the first `min_tokens` tokens."""
        if self._stops is None or len(self.journal.outputs) <= self._min_tokens:
            return text, None
        return self._stops.push(text)

    def started(self, num_cached: int) -> None:
        """The engine has its first token of this attempt; a replay's cached tokens are not the request's."""
        if self.state is Row.OPEN and self.journal.attempt == 0:
            self._listener.on_started(num_cached)

    def prompt_logprobs(self, message: PromptLogprobs) -> None:
        """A chunk of the prompt's log-probabilities."""
        if self.state is Row.OPEN:
            self._listener.on_prompt_logprobs(message)

    def abort(self) -> None:
        """Nobody wants it any more: what still comes is dropped and not billed."""
        self.state = next_row(self.state, RowEvent.ABORT)

    def fail(self, error: ApiError) -> None:
        """The engine could not serve it, or its epoch has ended."""
        was_open = self.state is Row.OPEN
        self.state = next_row(self.state, RowEvent.FAILED)
        if was_open:
            self._listener.on_row_failed(error)

    def break_off(self, error: ApiError) -> None:
        """This side failed to handle its output, whatever state that left it in."""
        self.state = next_row(self.state, RowEvent.ABORT)
        self._listener.on_row_failed(error)

    def lose(self) -> bool:
        """Its connection is gone. True: it is to be submitted again from its journal."""
        if self.state is not Row.OPEN:
            self.state = next_row(self.state, RowEvent.EPOCH_END)
            return False
        self.journal.next_attempt()
        if self.journal.fruitless < MAX_FRUITLESS_ATTEMPTS:
            return True
        self.fail(internal("The engine core failed this request each time that it was tried."))
        return False
