"""One epoch of one engine core, as this API server sees it: the connection, made anew on any trouble, and its rows.

Rows outlive connections: what is unfinished when a connection ends is submitted to the next one from its journal.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Protocol

from frontend.engine_socket import Context, EngineSocket
from frontend.errors import ApiError, from_exception, from_failure
from frontend.step_logprobs import by_token
from frontend.token_stream import TokenStream
from protocol.codec import decode_from_engine, encode, int32s, int64s
from protocol.errors import PeerError
from protocol.lifecycle import Connection, Link, Row
from protocol.messages import (
    PROTOCOL_VERSION,
    Abort,
    EngineReady,
    FromEngine,
    Heartbeat,
    Hello,
    PromptLogprobs,
    RequestFailed,
    StepLogprobs,
    StepOutput,
    ToEngine,
    Welcome,
)
from protocol.sockets import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S

log = logging.getLogger("headrace.engine_link")

MAX_CHOICES = 1024  # `Submit.num_choices`
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.02, 1.0


class LinkListener(Protocol):
    """Who is told what the engine core says of itself."""

    def link_welcomed(self, welcome: Welcome) -> None: ...

    def link_ready(self) -> None: ...

    def on_step(self) -> None: ...


class EngineLink:
    """From `connect` to the end of the epoch."""

    def __init__(
        self, context: Context, address: str, *, rank: int, epoch: int, place: int, life: int, listener: LinkListener
    ) -> None:
        self.rank = rank
        self.epoch = epoch
        self.rows: dict[int, TokenStream] = {}  # under way; those of a connection that is not ready yet wait here
        self.ready: EngineReady | None = None  # of the epoch: kept while a connection is made anew
        self.heartbeat: Heartbeat | None = None
        self._context = context
        self._address = address
        self._place = place
        self._life = life
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._num_troubles = 0  # since the last step
        self._num_new_rows = 0  # submitted since the last heartbeat, which does not count them
        self._handlers: dict[type, Callable[[Any], None]] = {
            Welcome: self._on_welcome,
            EngineReady: self._on_ready,
            Heartbeat: self._on_heartbeat,
            RequestFailed: self._on_request_failed,
            PromptLogprobs: self._on_prompt_logprobs,
        }
        self._timer: asyncio.TimerHandle | None = None
        self._socket: EngineSocket | None = None
        self._open()

    @property
    def is_ready(self) -> bool:
        return self._socket is not None and self._connection.link is Link.READY

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
            first = rows[0].journal
            self._send(first.first_submit(epoch=self.epoch, seq=self._connection.next_sent, num_choices=len(rows)))

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

    def take_rows(self) -> list[TokenStream]:
        """The epoch is replaced: close, and hand over the rows that go on elsewhere."""
        self.close()
        self._lose_rows()
        rows = list(self.rows.values())
        self.rows.clear()
        return rows

    def adopt(self, rows: Sequence[TokenStream]) -> None:
        """Rows of another epoch go on here. Only before this one is ready."""
        self.rows.update((row.journal.number, row) for row in rows)

    def fail_rows(self, error: ApiError) -> None:
        """The epoch is over: close, and let every row fail."""
        self.close()
        while self.rows:
            self.rows.popitem()[1].fail(error)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # --- the connection ----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._connection = Connection()
        self._last_heard = self._loop.time()
        self._socket = EngineSocket(
            self._context, self._address, place=self._place, on_frames=self._on_frames, on_lost=self._reset
        )
        self._timer = self._loop.call_later(HEARTBEAT_INTERVAL_S, self._watch)
        self._send(Hello(seq=self._connection.next_sent, version=PROTOCOL_VERSION, place=self._place, life=self._life))

    def _reset(self, reason: str) -> None:
        """Close the connection and make a new one, a little later each time until steps come again."""
        if self._socket is None:
            return
        self.close()
        log.warning("engine core %d: %s; connecting again with %d rows", self.rank, reason, len(self.rows))
        self._lose_rows()
        delay_s = min(_FIRST_DELAY_S * 2**self._num_troubles, _LONGEST_DELAY_S)
        self._num_troubles += 1
        self._timer = self._loop.call_later(delay_s, self._open)

    def _lose_rows(self) -> None:
        for number, row in list(self.rows.items()):
            if number in self.rows and not row.lose():
                self.rows.pop(number, None)  # its generation may have taken all its rows out already

    def _watch(self) -> None:
        """Heartbeat silence. What came while our own loop was busy is looked at before judging."""
        self._timer = self._loop.call_later(HEARTBEAT_INTERVAL_S, self._watch)
        if self._socket is not None:
            self._socket.drain()
        if self.is_ready and self._loop.time() - self._last_heard > HEARTBEAT_TIMEOUT_S:
            self._reset(f"silent for {HEARTBEAT_TIMEOUT_S} s")

    def _send(self, message: ToEngine) -> None:
        """Where that fails the connection is at its end. Only while there is one."""
        assert self._socket is not None
        self._connection.sent(message)
        try:
            self._socket.send(encode(message))
        except PeerError as error:
            self._reset(str(error))

    def _send_abort(self, numbers: list[int]) -> None:
        if numbers:
            self._send(Abort(seq=self._connection.next_sent, epoch=self.epoch, numbers=numbers))

    # --- what comes --------------------------------------------------------------------------------------------------

    def _on_frames(self, frames: list[bytes]) -> None:
        self._last_heard = self._loop.time()
        try:
            message, logprobs = decode_from_engine(frames)
            self._connection.received(message)
            self._check_epoch(message)
            if isinstance(message, StepOutput):
                self._on_step_output(message, logprobs)
            else:
                self._handlers[type(message)](message)
        except PeerError as error:
            self._reset(str(error))

    def _check_epoch(self, message: FromEngine) -> None:
        if message.epoch != self.epoch:
            raise PeerError(f"{type(message).__name__} of another epoch")

    def _on_welcome(self, welcome: Welcome) -> None:
        if welcome.version != PROTOCOL_VERSION:
            raise PeerError(f"it speaks protocol version {welcome.version}, this API server {PROTOCOL_VERSION}")
        self._listener.link_welcomed(welcome)

    def _on_ready(self, ready: EngineReady) -> None:
        self.ready = ready
        for row in list(self.rows.values()):
            if not self.is_ready:
                return
            self._send(row.journal.to_submit(epoch=self.epoch, seq=self._connection.next_sent))
        self._listener.link_ready()

    def _on_heartbeat(self, heartbeat: Heartbeat) -> None:
        self.heartbeat = heartbeat
        self._num_new_rows = 0

    def _on_request_failed(self, failure: RequestFailed) -> None:
        if failure.num_rows > MAX_CHOICES:
            raise PeerError(f"RequestFailed of {failure.num_rows} rows; a Submit has at most {MAX_CHOICES}")
        error = from_failure(failure)
        for number in range(failure.number, failure.number + failure.num_rows):
            row = self.rows.pop(number, None)
            if row is not None:
                row.fail(error)

    def _on_prompt_logprobs(self, message: PromptLogprobs) -> None:
        row = self.rows.get(message.number)
        if row is not None:
            row.prompt_logprobs(message)

    def _on_step_output(self, message: StepOutput, logprobs: StepLogprobs | None) -> None:
        """The hot path: everything in it is paid once for each token of each stream."""
        self._num_troubles = 0
        rows = self.rows
        for number, num_cached in zip(int64s(message.started_rows), int32s(message.started_cached), strict=True):
            if number in rows:
                rows[number].started(num_cached)
        tokens = int32s(message.tokens)
        entries = repeat(None) if logprobs is None else by_token(logprobs, tokens)
        now = self._last_heard
        stopped = []
        for number, token, finish, logprob in zip(
            int64s(message.rows), tokens, message.finishes, entries, strict=False
        ):
            row = rows.get(number)
            if row is None:  # it ended here, or was the last connection's
                continue
            try:
                if row.push(token, finish, now, logprob):
                    stopped.append(number)
            except PeerError:
                raise
            except Exception as error:  # noqa: BLE001 - a request can only hurt itself, not the other rows of the step
                log.exception("row %d failed in this API server", number)
                self._loop.call_soon(row.break_off, from_exception(error))
            if finish:
                rows.pop(number, None)
        self._listener.on_step()
        if self.is_ready:
            self._send_abort(stopped)
