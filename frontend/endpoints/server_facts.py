"""GET /version, /load and /metrics: one API server answers for all, from the scoreboard."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from frontend.endpoints.responses import JsonBytes
from frontend.metrics import CONTENT_TYPE, MetricsText, render_metrics
from frontend.services import Services
from headrace import __version__


class ServerEndpoint:
    """Facts about the whole server."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._metrics = MetricsText(self._render_metrics)

    async def version(self, request: Request) -> Response:
        """As `headrace --version`."""
        return JsonBytes(msgspec.json.encode({"version": __version__}))

    async def load(self, request: Request) -> Response:
        """What autoscalers ask; the question itself is not counted."""
        board = self._services.scoreboard
        in_flight = sum(row.get("in_flight") for _, row in board.api_rows() if board.is_live(row))
        return JsonBytes(msgspec.json.encode({"server_load": max(0, in_flight - 1)}))

    async def metrics(self, request: Request) -> Response:
        """In the text format that Prometheus reads."""
        return Response(await self._metrics.get(), media_type=CONTENT_TYPE)

    def _render_metrics(self) -> bytes:
        services = self._services
        prefix, model_name = services.settings.metrics_prefix, services.model_names[0]
        return render_metrics(services.scoreboard, prefix=prefix, model_name=model_name)
