"""One epoch of one engine core, as this API server sees it: its rows, and the connection that carries them.

Rows outlive connections: what is unfinished when one is lost goes on over the next from its journal.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from frontend.engine_connection import Endpoint, EngineConnection
from frontend.errors import ApiError, from_failure
from frontend.step_work import StepWork
from frontend.token_stream import TokenStream
from protocol.codec import int32s, int64s
from protocol.errors import PeerError
from protocol.lifecycle import Row
from protocol.messages import (
    Abort,
    EngineReady,
    FromEngine,
    Heartbeat,
    PromptLogprobs,
    RequestFailed,
    StepLogprobs,
    StepOutput,
    Welcome,
)

log = logging.getLogger("headrace.engine_link")

_MAX_CHOICES = 1024  # of `Submit.num_choices`
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.02, 1.0
# After so much of the engine's output the event loop has its turn: health routes and new requests do not wait longer.
_ROWS_A_SLICE, _SLICES_A_TURN, _TURN_S = 16, 4, 0.002
_MAX_STEPS_BEHIND = 1  # with more steps waiting than that, rows hold back their text until the last of them


class LinkListener(Protocol):
    """Who is told what the engine core says of itself."""

    def link_welcomed(self, welcome: Welcome) -> None: ...

    def link_ready(self) -> None: ...

    def on_step(self) -> None: ...


class EngineLink:
    """From `connect` to the end of the epoch."""

    def __init__(self, endpoint: Endpoint, listener: LinkListener) -> None:
        self.endpoint = endpoint
        self.rows: dict[int, TokenStream] = {}  # under way; while there is no ready connection they wait here
        self.ready: EngineReady | None = None  # of the epoch: kept from one connection to the next
        self.heartbeat: Heartbeat | None = None
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._has_submitted = False  # over the present connection
        self._num_losses = 0  # of connections, since the last step
        self._num_new_rows = 0  # submitted since the last heartbeat, which does not count them
        self._inbox: deque[tuple[FromEngine, StepLogprobs | None, float]] = deque()  # each with its time of arrival
        self._step: StepWork | None = None  # under way: begun and not yet told to all its rows
        self._held_rows: set[TokenStream] = set()  # hold text back because this API server is late
        self._is_resuming = False  # its next turn is due anyway
        self._handlers: dict[type, Callable[[Any], None]] = {
            Welcome: listener.link_welcomed,
            EngineReady: self._on_ready,
            Heartbeat: self._on_heartbeat,
            RequestFailed: self._on_request_failed,
            PromptLogprobs: self._on_prompt_logprobs,
        }
        self._connect()

    @property
    def is_ready(self) -> bool:
        return self._connection.is_ready

    @property
    def load(self) -> int:
        """Rows that the engine core has, of all API servers, as far as we know."""
        beat = self.heartbeat
        return self._num_new_rows + (beat.num_running + beat.num_waiting if beat else 0)

    # --- what is asked of it -----------------------------------------------------------------------------------------

    def submit(self, rows: Sequence[TokenStream]) -> None:
        """The choices of one request, numbered one after the other."""
        self.rows.update((row.journal.number, row) for row in rows)
        self._num_new_rows += len(rows)
        if self.is_ready:
            epoch, seq = self.endpoint.epoch, self._connection.next_seq
            self._connection.send(rows[0].journal.first_submit(epoch=epoch, seq=seq, num_choices=len(rows)))

    def abort(self, numbers: Sequence[int]) -> None:
        """End these rows: nothing more is heard of them. Numbers of other links' or ended rows are passed over."""
        mine = [number for number in numbers if number in self.rows and self.rows[number].state is Row.OPEN]
        for number in mine:
            self.rows[number].abort()
        if self.is_ready:
            self._send_abort(mine)
        else:
            for number in mine:
                del self.rows[number]

    def adopt(self, old: "EngineLink") -> None:
        """This epoch replaces the old one: its unfinished rows go on here once this one is ready."""
        old.close()
        old._lose_rows()
        self.rows |= old.rows

    def fail_rows(self, error: ApiError) -> None:
        """The epoch is over: close, and let every row fail."""
        self.close()
        while self.rows:
            self.rows.popitem()[1].fail(error)

    def close(self) -> None:
        """Give the connection back and make no other."""
        self._connection.close()
        self._forget_mail()
        if self._retry is not None:
            self._retry.cancel()

    def _send_abort(self, numbers: list[int]) -> None:
        if numbers:
            epoch, seq = self.endpoint.epoch, self._connection.next_seq
            self._connection.send(Abort(seq=seq, epoch=epoch, numbers=numbers))

    # --- the connection ----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._connection = EngineConnection(self.endpoint, self)

    def on_lost(self, reason: str) -> None:
        """Make a new connection, a little later each time until steps come again."""
        log.warning("engine core %d: %s; connecting again with %d rows", self.endpoint.rank, reason, len(self.rows))
        self._forget_mail()
        self._lose_rows()
        delay_s = min(_FIRST_DELAY_S * 2**self._num_losses, _LONGEST_DELAY_S)
        self._num_losses += 1
        self._retry = self._loop.call_later(delay_s, self._connect)

    def _lose_rows(self) -> None:
        """What the lost connection carried is to be submitted again, or given up; what waited for one waits on."""
        if not self._has_submitted:
            return
        self._has_submitted = False
        for number, row in list(self.rows.items()):
            if number in self.rows and not row.lose():
                self.rows.pop(number, None)  # its generation may have taken all its rows out already

    # --- mail --------------------------------------------------------------------------------------------------------

    def on_message(self, message: FromEngine, logprobs: StepLogprobs | None) -> None:
        """What comes, in its legal order. It is handled once all that has come is known."""
        self._inbox.append((message, logprobs, self._connection.last_heard))

    def on_drained(self) -> None:
        """Handle it, unless that goes on by itself."""
        if not self._is_resuming:
            self._work()

    def _work(self) -> None:
        """In order of arrival, for one turn; what is left goes on in the event loop's next."""
        self._is_resuming = False
        until, num_slices = time.monotonic() + _TURN_S, 0
        try:
            while self._step is not None or self._inbox:
                if num_slices == _SLICES_A_TURN or time.monotonic() >= until:
                    self._is_resuming = True
                    self._loop.call_soon(self._work)
                    return
                if self._step is None:
                    self._take_mail()
                else:
                    self._push_slice(self._step)
                    num_slices += 1
        except PeerError as error:
            self._connection.lose(str(error))

    def _take_mail(self) -> None:
        message, logprobs, now = self._inbox.popleft()
        if isinstance(message, StepOutput):
            self._begin_step(message, logprobs, now)
        else:
            self._handlers[type(message)](message)

    def _forget_mail(self) -> None:
        self._inbox.clear()
        self._step = None
        self._release_held()

    def _on_ready(self, ready: EngineReady) -> None:
        self.ready = ready
        self._has_submitted = True
        for row in list(self.rows.values()):
            if self.is_ready:  # it may be lost within this loop
                seq = self._connection.next_seq
                self._connection.send(row.journal.to_submit(epoch=self.endpoint.epoch, seq=seq))
        self._listener.link_ready()

    def _on_heartbeat(self, heartbeat: Heartbeat) -> None:
        self.heartbeat = heartbeat
        self._num_new_rows = 0

    def _on_request_failed(self, failure: RequestFailed) -> None:
        if failure.num_rows > _MAX_CHOICES:
            raise PeerError(f"RequestFailed of {failure.num_rows} rows; a Submit has at most {_MAX_CHOICES}")
        error = from_failure(failure)
        for number in range(failure.number, failure.number + failure.num_rows):
            row = self.rows.pop(number, None)
            if row is not None:
                row.fail(error)

    def _on_prompt_logprobs(self, message: PromptLogprobs) -> None:
        row = self.rows.get(message.number)
        if row is not None:
            row.prompt_logprobs(message)

    # --- steps -------------------------------------------------------------------------------------------------------

    def _begin_step(self, message: StepOutput, logprobs: StepLogprobs | None, now: float) -> None:
        self._num_losses = 0
        for number, num_cached in zip(int64s(message.started_rows), int32s(message.started_cached), strict=True):
            if number in self.rows:
                self.rows[number].started(num_cached)
        is_late = sum(isinstance(message, StepOutput) for message, _, _ in self._inbox) > _MAX_STEPS_BEHIND
        self._step = StepWork(message, logprobs, now=now, hold=is_late, held=self._held_rows)

    def _push_slice(self, step: StepWork) -> None:
        if step.push_some(self.rows, _ROWS_A_SLICE):
            return
        self._step = None
        if not step.hold:
            self._release_held()
        self._listener.on_step()
        if self.is_ready:
            self._send_abort(step.stopped)

    def _release_held(self) -> None:
        """No more steps wait: rows that had nothing in the last one tell what they held back."""
        for row in self._held_rows:
            row.release()
        self._held_rows.clear()
