"""A request's body, read once and decoded once: media type, size, JSON, fields."""

from typing import Generic, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from frontend.errors import body_too_large, unknown_model, wrong_media_type
from frontend.openai_bodies.decode import BodyDecoder
from frontend.services import Services
from frontend.settings import Settings

Body = TypeVar("Body", bound=msgspec.Struct)


class BodyReader(Generic[Body]):
    """Reads one kind of body."""

    def __init__(self, kind: type[Body], settings: Settings) -> None:
        self._max_bytes = settings.max_body_bytes
        self._decoder = BodyDecoder(
            kind, max_depth=settings.max_json_depth, allow_unknown_fields=settings.allow_unknown_fields
        )

    async def read(self, request: Request) -> Body:
        """Raises `ApiError` 400, 413 or 415."""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise wrong_media_type(media_type)
        return self._decoder.decode(await self._read_bytes(request))

    async def _read_bytes(self, request: Request) -> bytes:
        pieces: list[bytes] = []
        num_bytes = 0
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            pieces.append(message.get("body", b""))
            num_bytes += len(pieces[-1])
            if num_bytes > self._max_bytes:
                raise body_too_large(self._max_bytes)
            if not message.get("more_body", False):
                return b"".join(pieces)


def served_model(services: Services, asked: str | None) -> str:
    """The name to answer with: the one asked for, or the first. Raises `ApiError` 404."""
    if asked is None:
        return services.model_names[0]
    if asked not in services.model_names:
        raise unknown_model(asked, services.model_names)
    return asked
