"""One HTTP connection: uvicorn's, with limits of our own on size and time, and refusals in OpenAI's error shape.

httptools has no limits, and uvicorn no timeout but the one for idle connections. What is limited of a message is the
number of bytes that came since its begin or since the last byte of its body, whichever is later: that covers the header
block, trailers and chunk framing, however they are cut into pieces.
"""

import asyncio
import http
import logging
from enum import Enum, auto
from functools import partial
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from frontend.access_log import AccessLog
from frontend.direct_body import DirectBody, offer
from frontend.errors import ApiError, body_too_large, header_too_large, invalid, too_slow, wrong_method
from frontend.load import Load
from frontend.settings import Settings

_LINGER_S = 2.0  # a refused client may go on sending for so long, so that it can read why before it is cut off
_UPGRADE_FIELDS = (b"connection", b"upgrade", b"http2-settings")


class _Phase(Enum):
    """What is awaited from the client."""

    NOTHING = auto()
    HEADER = auto()
    BODY = auto()


class _Refused(Exception):
    """Leaves the parser's callbacks when a message breaks a limit."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


class HttpProtocol(HttpToolsProtocol):
    """Made by the acceptor for each connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        *,
        settings: Settings,
        load: Load,
        access_log: AccessLog | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state={}, _loop=asyncio.get_running_loop())
        if access_log is not None:
            self.access_logger = cast(logging.Logger, access_log)  # of a logger, uvicorn uses `info` only
            self.access_log = True
        self._settings = settings
        self._load = load
        self._settled = False  # until its first request the connection itself weighs in the load
        self._refused = False
        self._message = 1  # which message of the connection
        self._phase = _Phase.HEADER
        self._progressed = False  # the piece being parsed ended a header, held a byte of body, or ended a message
        self._overhead_bytes = 0
        self._num_fields = 0
        self._body_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timed: tuple[int, _Phase] | None = None  # what the timer is for
        self._direct: DirectBody | None = None  # of the response that is under way

    # --- for the drain -----------------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """A response is under way."""
        # None before the first request, though uvicorn's annotation says otherwise
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]

    @property
    def _response_started(self) -> bool:
        return self.cycle is not None and self.cycle.response_started  # type: ignore[redundant-expr]

    def close_after_response(self) -> None:
        """Do not wait for another request after the one that is under way."""
        if self.is_busy:
            self.cycle.keep_alive = False

    def close_if_idle(self) -> None:
        """Close unless a response is under way."""
        if not self.is_busy:
            self.transport.close()

    # --- from the transport ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        self._settle()
        super().connection_lost(exc)
        if self._direct is not None:
            self._direct.on_gone()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._direct is not None:
            self._direct.on_flow()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._direct is not None:
            self._direct.on_flow()

    def data_received(self, data: bytes) -> None:
        while data and not self._refused and not self.transport.is_closing():
            allowed = self._settings.max_header_bytes - self._overhead_bytes
            data = self._parse(data[:allowed]) + data[allowed:] if len(data) > allowed else self._parse(data)
        self._set_timer()

    def _parse(self, piece: bytes) -> bytes:
        """Feed the parser; returns what is to be fed next: nothing but after an upgrade, which we ignore."""
        self._progressed = False
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            rest = self._head_without_upgrade() + piece[upgrade.args[0] :]
            self._new_parser()
            return rest
        except httptools.HttpParserError as error:
            self._refuse(_reason(error))
            return b""
        self._overhead_bytes = 0 if self._progressed else self._overhead_bytes + len(piece)
        if self._overhead_bytes >= self._settings.max_header_bytes:
            limit = self._settings.max_header_bytes
            self._refuse(header_too_large(f"The header is larger than {limit} bytes (--max-header-bytes)."))
        return b""

    # --- from the parser ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()
        self._phase = _Phase.HEADER
        self._num_fields = self._body_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._num_fields += 1
        limit = self._settings.max_header_fields
        if self._num_fields > limit:
            raise _Refused(header_too_large(f"The header has more than {limit} fields (--max-header-fields)."))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._progressed = True
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _Refused(wrong_method("CONNECT", self.url.decode("latin-1")))
            return  # the parser stops here, and is fed the same header without the upgrade
        self._phase = _Phase.BODY
        for name, value in self.headers:
            if name == b"content-length" and int(value) > self._settings.max_body_bytes:
                raise _Refused(body_too_large(self._settings.max_body_bytes))
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._progressed = True
        self._body_bytes += len(body)
        if self._body_bytes > self._settings.max_body_bytes:  # the sum of chunks, which no header tells
            raise _Refused(body_too_large(self._settings.max_body_bytes))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._progressed = True
        if self.parser.should_upgrade():
            return
        self._phase = _Phase.NOTHING
        self._message += 1
        super().on_message_complete()

    # --- load --------------------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._settle()
        self._unset_keepalive_if_required()  # set while the rest of this request was on its way
        leaves = self._load.request_began()
        if leaves:
            cycle.keep_alive = False
        self._direct = offer(cycle, self.transport)
        task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(partial(self._task_ended, leaves=leaves))

    def _task_ended(self, task: asyncio.Task[None], *, leaves: bool) -> None:
        self.tasks.discard(task)
        self._load.request_ended(leaves=leaves)

    def _settle(self) -> None:
        if not self._settled:
            self._settled = True
            self._load.connection_settled()

    # --- time --------------------------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        """One timer for each header and each body, however many pieces it comes in."""
        awaited = (self._message, self._phase)
        if awaited == self._timed or self._refused:
            return
        self._cancel_timer()
        self._timed = awaited
        if self._phase is not _Phase.NOTHING:
            self._timer = self.loop.call_later(self._time_limit_s, self._too_slow)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _time_limit_s(self) -> float:
        return self._settings.header_timeout if self._phase is _Phase.HEADER else self._settings.body_timeout

    def _too_slow(self) -> None:
        if self.flow.read_paused:  # it is us who do not read
            self._timer = self.loop.call_later(self._time_limit_s, self._too_slow)
        elif self._message == 1 and self._phase is _Phase.HEADER and not self._overhead_bytes:
            self.transport.close()  # it never sent anything that could be answered
        else:
            self._refuse(too_slow(self._phase.name.lower(), self._time_limit_s))

    # --- refusing ----------------------------------------------------------------------------------------------------

    def _refuse(self, error: ApiError) -> None:
        """Answer with the error and take nothing more from this client."""
        self._refused = True
        self._cancel_timer()
        of_this_message = self._phase is _Phase.BODY and not self.pipeline
        if self.is_busy and not of_this_message:
            self.cycle.keep_alive = False  # an earlier request's response is under way: its client gets all of it
            self.flow.pause_reading()
        elif of_this_message and self._response_started:
            self.transport.close()
        else:
            self._drop_request()
            self._answer(error)

    def _drop_request(self) -> None:
        """The application, which may be waiting for the rest of the body, sees a client that is gone."""
        if self.is_busy:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self._direct is not None:
                self._direct.on_gone()

    def _answer(self, error: ApiError) -> None:
        phrase = http.HTTPStatus(error.status).phrase
        fields = [
            *self.server_state.default_headers,
            *error.headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(error.body)).encode()),
            (b"connection", b"close"),
        ]
        head = b"".join(b"%s: %s\r\n" % field for field in fields)
        self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (error.status, phrase.encode(), head, error.body))
        # Closing with unread data would reset the connection, and the client would lose the answer (RFC 9112, 9.6).
        self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)

    # --- upgrades ----------------------------------------------------------------------------------------------------

    def _new_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does: to answer pipelines

    def _head_without_upgrade(self) -> bytes:
        """A server may ignore an upgrade (RFC 9110, 7.8); clients that would like HTTP/2 ask for it with every POST."""
        fields = [b"%s: %s\r\n" % field for field in self.headers if field[0] not in _UPGRADE_FIELDS]
        return b"%s %s HTTP/1.1\r\n%s\r\n" % (self.parser.get_method(), self.url, b"".join(fields))


def _reason(error: httptools.HttpParserError) -> ApiError:
    """Why the parser stopped: a limit of ours, or malformed HTTP."""
    cause = error.__context__
    if isinstance(cause, _Refused):
        return cause.error
    return invalid(None, f"The request is not valid HTTP: {cause or error}.")
