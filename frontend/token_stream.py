"""One row under way: from the engine's tokens to deltas of text. Ends exactly once; knows no socket and no HTTP."""

from collections.abc import Sequence
from typing import Protocol

from frontend.errors import ApiError, internal
from frontend.journal import Journal
from frontend.request import Delta, FinishReason, Lane, TokenLogprob
from protocol.errors import PeerError
from protocol.lifecycle import Row, RowEvent, next_row
from protocol.messages import Finish, PromptLogprobs

MAX_FRUITLESS_ATTEMPTS = 8  # in a row; most rows that lose a connection without a token only waited
_REASONS: dict[int, FinishReason] = {Finish.EOS: "stop", Finish.STOP_TOKEN: "stop", Finish.LENGTH: "length"}
_STOPS = frozenset({Finish.EOS, Finish.STOP_TOKEN})


class TextDecoder(Protocol):
    """`frontend.detokenizer.Detokenizer`, as far as a row needs it."""

    def push(self, token_ids: Sequence[int]) -> str: ...

    def push_one(self, token_id: int) -> str: ...

    def flush(self) -> str: ...


class StopSearch(Protocol):
    """`frontend.stop_strings.StopChecker`, as far as a row needs it."""

    def push(self, text: str) -> tuple[str, str | None]: ...

    def flush(self) -> str: ...


class RowListener(Protocol):
    """Who is told what becomes of a row: its generation."""

    def on_token(self, now: float, last: float | None) -> None: ...

    def on_delta(self, delta: Delta) -> None: ...

    def on_started(self, num_cached: int) -> None: ...

    def on_prompt_logprobs(self, message: PromptLogprobs) -> None: ...

    def on_row_failed(self, error: ApiError) -> None: ...


class TokenStream:
    """One choice of one request. Its state is the protocol's: once it is not OPEN, its listener hears nothing more."""

    __slots__ = (
        "_decoder",
        "_keep_stop",
        "_lane",
        "_last_at",
        "_listener",
        "_logprobs",
        "_min_tokens",
        "_num_held",
        "_stops",
        "_text",
        "journal",
        "state",
    )

    def __init__(
        self,
        journal: Journal,
        *,
        decoder: TextDecoder,
        stops: StopSearch | None,
        min_tokens: int,
        include_stop: bool,
        listener: RowListener,
        lane: Lane,
    ) -> None:
        self.journal = journal
        self.state = Row.OPEN
        self._decoder = decoder
        self._stops = stops
        self._min_tokens = min_tokens
        self._keep_stop = include_stop
        self._listener = listener
        self._lane = lane
        self._last_at: float | None = None
        # accepted tokens that the listener has not been told: decoded when they are, but for stop strings' sake
        self._num_held = 0
        self._text = ""
        self._logprobs: list[TokenLogprob] = []

    def push(self, token: int, finish: int, now: float, logprob: TokenLogprob | None = None, *, hold: bool) -> bool:
        """One token of a step. True: a stop string ended the row here, and the engine is to be told.

        `hold`: newer steps are waiting to be handled, so tell nothing yet.
        """
        if finish or logprob is not None or self._stops is not None or self.state is not Row.OPEN:
            return self._push_carefully(token, finish, now, logprob, hold=hold)
        self._accept(token, now)
        lane = self._lane
        if hold or self._num_held or lane.interval > 1:
            self._hold_one(hold=hold)
            return False
        text = self._decoder.push_one(token)
        if lane.write is None:
            self._listener.on_delta(Delta(choice=self.journal.choice, text=text, token_ids=[token]))
        elif text:
            lane.write(text)
        return False

    def _push_carefully(self, token: int, finish: int, now: float, logprob: TokenLogprob | None, *, hold: bool) -> bool:
        """It has more to tell than its text, ends the row, might end it within its text, or comes after its end."""
        if self.state is not Row.OPEN:
            self.state = next_row(self.state, RowEvent.FINISH if finish else RowEvent.OUTPUT)
            return False
        if finish and finish not in _REASONS:
            raise PeerError(f"row {self.journal.number} ended by {finish}, which nobody asked for")
        self._accept(token, now)
        if logprob is not None:
            self._logprobs.append(logprob)
        hit = self._search(token, finish)
        self._hold_one(hold=hold or finish != 0 or hit is not None)
        if hit is not None or finish:
            self._end(token, finish, hit)
        return hit is not None and not finish

    def _accept(self, token: int, now: float) -> None:
        self.journal.outputs.append(token)
        self._listener.on_token(now, self._last_at)
        self._last_at = now

    def _hold_one(self, *, hold: bool) -> None:
        self._num_held += 1
        if not hold and self._num_held >= self._lane.interval:
            self.release()

    def _search(self, token: int, finish: int) -> str | None:
        """Stop strings count only in what comes after the first `min_tokens` tokens. The one that was found."""
        if self._stops is None:
            return None
        text, hit = self._decode([token], finish), None
        if len(self.journal.outputs) > self._min_tokens:
            text, hit = self._stops.push(text)
        if finish and hit is None:
            text += self._stops.flush()
        self._text += text
        return hit

    def _decode(self, token_ids: list[int], finish: int) -> str:
        """Their text; that of a stop token, which is the last, only where it was asked for."""
        text = self._decoder.push(token_ids[:-1] if finish in _STOPS and not self._keep_stop else token_ids)
        return text + self._decoder.flush() if finish else text

    def _end(self, token: int, finish: int, hit: str | None) -> None:
        text = self._held_text(finish)
        self.state = next_row(self.state, RowEvent.FINISH if finish else RowEvent.ABORT)
        if hit is not None:
            self._tell(text, "stop", hit)
        else:
            self._tell(text, _REASONS[finish], token if finish == Finish.STOP_TOKEN else None)

    def release(self) -> None:
        """Tell now what was held back."""
        if self._num_held == 0 or self.state is not Row.OPEN:
            return
        text = self._held_text(Finish.RUNNING)
        if self._lane.write is None:
            self._tell(text, None, None)
            return
        self._num_held = 0
        if text:
            self._lane.write(text)

    def _held_text(self, finish: int) -> str:
        if self._stops is None:
            return self._decode(self.journal.outputs[-self._num_held :].tolist(), finish)
        text, self._text = self._text, ""
        return text

    def _tell(self, text: str, reason: FinishReason | None, stop_reason: int | str | None) -> None:
        token_ids = self.journal.outputs[-self._num_held :].tolist()
        logprobs, self._logprobs = self._logprobs, []
        self._num_held = 0
        self._listener.on_delta(
            Delta(
                choice=self.journal.choice,
                text=text,
                token_ids=token_ids,
                logprobs=logprobs or None,
                finish_reason=reason,
                stop_reason=stop_reason,
            )
        )

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
        self.release()
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
        self.release()
        self.journal.next_attempt()
        if self.journal.fruitless < MAX_FRUITLESS_ATTEMPTS:
            return True
        self.fail(internal("The engine core failed this request each time that it was tried."))
        return False
