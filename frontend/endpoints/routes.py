"""The route table: path, what answers, and what the docs say of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from frontend.endpoints.chat import ChatEndpoint
from frontend.endpoints.completions import CompletionEndpoint
from frontend.endpoints.models import ModelEndpoint
from frontend.endpoints.server_facts import ServerEndpoint
from frontend.endpoints.tokens import TokenEndpoint
from frontend.openai_bodies.answers import ChatCompletion, Completion, ModelCard, ModelList
from frontend.openai_bodies.chat import ChatBody
from frontend.openai_bodies.completion import CompletionBody
from frontend.openai_bodies.tokens import DetokenizeAnswer, DetokenizeBody, TokenizeAnswer, TokenizeBody
from frontend.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRoute:
    """One path with one method."""

    method: str
    path: str
    endpoint: Callable[[Request], Awaitable[Response]]
    summary: str
    body: type[msgspec.Struct] | None = None
    answer: Any = None
    streams: bool = False


def api_routes(services: Services) -> list[ApiRoute]:
    """All but probes and docs."""
    return [*_generating(services), *_around_tokens(services), *_about_the_server(services)]


def _generating(services: Services) -> list[ApiRoute]:
    return [
        ApiRoute(
            method="POST",
            path="/v1/chat/completions",
            endpoint=ChatEndpoint(services).create,
            summary="Continue a conversation; with stream, as server-sent events",
            body=ChatBody,
            answer=ChatCompletion,
            streams=True,
        ),
        ApiRoute(
            method="POST",
            path="/v1/completions",
            endpoint=CompletionEndpoint(services).create,
            summary="Continue texts or token ids; with stream, as server-sent events",
            body=CompletionBody,
            answer=Completion,
            streams=True,
        ),
    ]


def _around_tokens(services: Services) -> list[ApiRoute]:
    endpoint = TokenEndpoint(services)
    return [
        ApiRoute(
            method="POST",
            path="/tokenize",
            endpoint=endpoint.tokenize,
            summary="Text or messages to token ids",
            body=TokenizeBody,
            answer=TokenizeAnswer,
        ),
        ApiRoute(
            method="POST",
            path="/detokenize",
            endpoint=endpoint.detokenize,
            summary="Token ids to text",
            body=DetokenizeBody,
            answer=DetokenizeAnswer,
        ),
    ]


def _about_the_server(services: Services) -> list[ApiRoute]:
    models, server = ModelEndpoint(services), ServerEndpoint(services)

    def get(
        path: str, endpoint: Callable[[Request], Awaitable[Response]], summary: str, answer: Any = None
    ) -> ApiRoute:
        return ApiRoute(method="GET", path=path, endpoint=endpoint, summary=summary, answer=answer)

    return [
        get("/v1/models", models.list_all, "The names that requests may ask for", ModelList),
        get("/v1/models/{model_id:path}", models.show, "One of them", ModelCard),
        get("/version", server.version, "The server's version", dict[str, str]),
        get("/load", server.load, "Requests in flight, over all API servers", dict[str, int]),
        get("/metrics", server.metrics, "Prometheus metrics of the whole server"),
    ]
