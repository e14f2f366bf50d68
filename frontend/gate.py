"""What uvicorn calls: answers for the process while its app is not built yet, for probes always, and for drains.

It imports no web framework, so that an API server answers before that is loaded.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from frontend.errors import ApiError, unavailable, wrong_method
from frontend.services import Services

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# What each probe asks, for the docs.
PROBES = {
    "/livez": "Whether this process lives",
    "/readyz": "Whether work is accepted; 503 names what is in the way",
    "/health": "Whether the server has become ready and still works",
    "/ping": "As /health",
}
_PROBE_METHODS = ("GET", "HEAD")
# Still answered while draining: they tell how the drain goes.
_OBSERVERS = frozenset({"/load", "/metrics", "/version"})


class Gate:
    """An ASGI application. `app` is set once the rest is loaded."""

    def __init__(self, services: Services) -> None:
        self.app: App | None = None
        self._services = services
        self._probes = {
            "/livez": self._live,
            "/readyz": self._ready,
            "/health": self._healthy,
            "/ping": self._healthy,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live_through(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path in PROBES:
            await self._probe(scope["method"], path, send)
        elif self.app is None:
            await _send_error_or_ok(send, unavailable("starting"))
        elif self._services.state == "draining" and path not in _OBSERVERS:
            await _send_error_or_ok(send, unavailable("draining"))
        else:
            await self.app(scope, receive, send)

    async def _probe(self, method: str, path: str, send: Send) -> None:
        if method in _PROBE_METHODS:
            await _send_error_or_ok(send, self._probes[path]())
        else:
            await _send_error_or_ok(send, wrong_method(method, path), (b"allow", ", ".join(_PROBE_METHODS).encode()))

    def _live(self) -> None:
        """The process answers: that is all."""

    def _ready(self) -> ApiError | None:
        """Whether work is accepted."""
        state = self._services.state if self.app is not None else "starting"
        if self._services.state == "draining":
            state = "draining"
        return None if state == "ready" else unavailable(state)

    def _healthy(self) -> ApiError | None:
        """Not before it was ready; a drain is no illness."""
        error = self._ready()
        return None if error is None or error.code == "draining" else error


async def _send_error_or_ok(send: Send, error: ApiError | None, *headers_beside: tuple[bytes, bytes]) -> None:
    body = b"{}" if error is None else error.body
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers_beside]
    if error is not None:
        headers += error.headers
        if error.code == "draining":
            headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": 200 if error is None else error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _live_through(receive: Receive, send: Send) -> None:
    """The lifespan protocol: services are made and closed by the process, so there is nothing to do."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
