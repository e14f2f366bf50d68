"""Server-sent events on their way to one client: straight to its connection or by a buffer; comments in silence.

It knows no OpenAI shapes: events are finished bytes.
"""

import asyncio

from starlette.types import Send

from frontend.direct_body import DirectBody
from frontend.errors import ApiError

DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),  # nginx would hold events back otherwise
    ],
}


class EventStream:
    """Written to synchronously by a sink; sent by the one task that runs `send_to`.

    With a `DirectBody` that task sends the head, the first events and the end, and sleeps in between: each event is a
    write of its own. Without one it wakes once a step.
    """

    def __init__(self, *, keep_alive_s: float, direct: DirectBody | None = None) -> None:
        self._keep_alive_s = keep_alive_s
        self._direct = direct
        self._is_direct = False  # from now until the end
        self._loop = asyncio.get_running_loop()
        self._last_write = self._loop.time()
        self._pending: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._started = False
        self._ended = False
        self._error: ApiError | None = None

    @property
    def is_paused(self) -> bool:
        """The client does not read: what can wait should."""
        return self._direct is not None and self._direct.is_paused

    def write(self, event: bytes) -> None:
        """Send these bytes; `end` and `fail` make it a no-op."""
        if self._ended:
            return
        self._last_write = self._loop.time()
        if self._is_direct:
            self._direct.write(event)  # type: ignore[union-attr]  # is_direct says that there is one
        else:
            self._pending.append(event)
            self._wake()

    def end(self, last: bytes = b"") -> None:
        """Nothing comes after these bytes, which are sent together with the end."""
        if last and not self._ended:
            self._pending.append(last)
        self._ended = True
        self._wake()

    def fail(self, error: ApiError) -> None:
        """An `error` event and the end, or the error's own status while that can still be sent."""
        if self._started or self._pending:
            self.end(b"event: error\ndata: " + error.body + b"\n\n")
        else:
            self._error = error
            self.end()

    async def send_to(self, send: Send) -> None:
        """Send everything until the end. Raises the `ApiError` that came before the first event."""
        self._watch_silence(self._keep_alive_s)
        try:
            await self._more()
            if self._error is not None:
                raise self._error
            self._started = True
            await send(_START)
            while await self._send_pending(send):
                self._is_direct = not self._pending and self._direct is not None and self._direct.can_write
                await self._more()
        finally:
            self._ended = True
            self._timer.cancel()

    async def _send_pending(self, send: Send) -> bool:
        events, ended = b"".join(self._pending), self._ended
        self._pending.clear()
        await send({"type": "http.response.body", "body": events, "more_body": not ended})
        return not ended

    async def _more(self) -> None:
        if not self._pending and not self._ended:
            self._waiter = self._loop.create_future()
            await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _watch_silence(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._break_silence)

    def _break_silence(self) -> None:
        silent_s = self._loop.time() - self._last_write
        if silent_s >= self._keep_alive_s:
            silent_s = 0.0
            if not self.is_paused:  # who does not read needs no comment
                self.write(_KEEP_ALIVE)
        self._watch_silence(self._keep_alive_s - silent_s)
