"""All HTTP connections of one API server: how a new one is set up, and how all of them come to their end."""

import asyncio
import logging
import math
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from frontend.access_log import make_access_log
from frontend.http_protocol import HttpProtocol
from frontend.load import Load
from frontend.settings import Settings

_LOOK_S = 0.02


class Connections:
    """The acceptor makes them through `new`; from then on each belongs to the event loop."""

    def __init__(self, app: Any, settings: Settings, load: Load) -> None:
        self.server_state = ServerState()
        self._settings = settings
        self._load = load
        self._config = Config(
            app,
            http=HttpProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level=logging.getLevelName(settings.uvicorn_log_level.upper()),
            access_log=False,  # ours is made below
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=math.ceil(settings.timeout_keep_alive),
        )
        self._config.load()
        self.access_log = make_access_log(is_wanted=not settings.disable_uvicorn_access_log)

    def new(self) -> HttpProtocol:
        """The protocol of one connection."""
        return HttpProtocol(
            self._config,
            self.server_state,
            settings=self._settings,
            load=self._load,
            access_log=self.access_log,
        )

    def close_after_responses(self) -> None:
        """No connection is kept for another request after the one that is under way."""
        for connection in self._all():
            connection.close_after_response()

    def close_idle(self) -> None:
        """Close those without a request."""
        for connection in self._all():
            connection.close_if_idle()

    async def until_none(self, timeout_s: float) -> bool:
        """Wait until there are no connections and no requests; False after the timeout."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.server_state.connections or self.server_state.tasks:
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    def _all(self) -> list[HttpProtocol]:
        return [cast(HttpProtocol, connection) for connection in self.server_state.connections]
