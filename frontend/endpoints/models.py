"""GET /v1/models and /v1/models/{id}."""

import time

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from frontend.endpoints.body import served_model
from frontend.endpoints.responses import JsonBytes
from frontend.openai_bodies.answers import ModelCard, ModelList
from frontend.services import Services


class ModelEndpoint:
    """The names that requests may ask for."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._created = int(time.time())

    async def list_all(self, request: Request) -> Response:
        """All of them, the reported one first."""
        cards = [self._card(name) for name in self._services.model_names]
        return JsonBytes(msgspec.json.encode(ModelList(data=cards)))

    async def show(self, request: Request) -> Response:
        """One. A name may hold slashes."""
        name = served_model(self._services, request.path_params["model_id"])
        return JsonBytes(msgspec.json.encode(self._card(name)))

    def _card(self, name: str) -> ModelCard:
        return ModelCard(
            id=name,
            created=self._created,
            root=self._services.settings.model,
            max_model_len=self._services.max_model_len,
        )
