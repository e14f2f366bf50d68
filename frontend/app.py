"""`build_app(services)`: routes, error handlers and docs. No logic of its own, no globals."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from frontend.direct_body import withdraw
from frontend.endpoints.routes import ApiRoute, api_routes
from frontend.errors import ApiError, from_exception, unknown_path, wrong_method
from frontend.gate import PROBES
from frontend.openai_bodies.answers import ErrorAnswer
from frontend.services import Services
from headrace import __version__
from protocol.errors import InvalidField

_SCHEMAS = "#/components/schemas/{name}"
_PATH_PARAMETER = re.compile(r"{(\w+)")


def build_app(services: Services) -> FastAPI:
    """The application of one API server."""
    routes = api_routes(services)
    app = _App(routes, with_docs=not services.settings.disable_fastapi_docs)
    for route in routes:
        app.add_api_route(
            route.path,
            route.endpoint,
            methods=[route.method],
            summary=route.summary,
            response_model=None,
            openapi_extra=_openapi_of(route),
        )
    for kind in (ApiError, InvalidField, Exception):
        app.add_exception_handler(kind, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    return app


class _App(FastAPI):
    """FastAPI whose schemas come from our msgspec types, with a short way to the routes that carry the load."""

    def __init__(self, routes: Sequence[ApiRoute], *, with_docs: bool) -> None:
        super().__init__(
            title="Headrace",
            version=__version__,
            openapi_url="/openapi.json" if with_docs else None,
            redirect_slashes=False,
        )
        self._direct = {(route.method, route.path): route.endpoint for route in routes if route.body is not None}
        self._types = [kind for route in routes for kind in (route.body, route.answer) if kind is not None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """FastAPI's layers cost more than all that we do for a small request, and do nothing for these routes."""
        endpoint = self._direct.get((scope["method"], scope["path"]))
        if self.user_middleware:  # which must see everything
            withdraw(scope)
            endpoint = None
        if endpoint is None:
            await super().__call__(scope, receive, send)
        else:
            await _serve(endpoint, scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Made at the first question."""
        if not self.openapi_schema:
            document = super().openapi()
            _, schemas = msgspec.json.schema_components([*self._types, ErrorAnswer], ref_template=_SCHEMAS)
            document.setdefault("components", {})["schemas"] = schemas
            document["paths"] |= {path: {"get": _openapi_of_probe(summary)} for path, summary in PROBES.items()}
        return self.openapi_schema or document


def _openapi_of(route: ApiRoute) -> dict[str, Any]:
    responses: dict[str, Any] = {"4XX": _content_of(ErrorAnswer, "Refused"), "5XX": _content_of(ErrorAnswer, "Failed")}
    if route.answer is not None:
        responses["200"] = _content_of(route.answer, "Successful Response")
    if route.streams:
        responses["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    extra: dict[str, Any] = {"responses": responses}
    if names := _PATH_PARAMETER.findall(route.path):
        string = {"in": "path", "required": True, "schema": {"type": "string"}}
        extra["parameters"] = [{"name": name, **string} for name in names]
    if route.body is not None:
        extra["requestBody"] = {"required": True, **_content_of(route.body, "")}
    return extra


def _openapi_of_probe(summary: str) -> dict[str, Any]:
    """The gate answers them, so they are no routes of the app."""
    return {"summary": summary, "responses": {"200": {"description": "Yes"}, "503": _content_of(ErrorAnswer, "No")}}


def _content_of(kind: Any, description: str) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([kind], ref_template=_SCHEMAS)
    content: dict[str, Any] = {"content": {"application/json": {"schema": schema}}}
    return content | {"description": description} if description else content


async def _serve(
    endpoint: Callable[[Request], Awaitable[Response]], scope: Scope, receive: Receive, send: Send
) -> None:
    request = Request(scope, receive, send)
    try:
        response = await endpoint(request)
        await response(scope, receive, send)
    except ClientDisconnect as error:
        await (await _answer_nobody(request, error))(scope, receive, send)
    except Exception as error:
        await (await _answer_error(request, error))(scope, receive, send)
        if not isinstance(error, ApiError | InvalidField):
            raise  # for the log


async def _answer_error(request: Request, error: Exception) -> Response:
    api_error = from_exception(error)
    headers = {name.decode(): value.decode() for name, value in api_error.headers}
    return Response(api_error.body, api_error.status, headers, media_type="application/json")


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """What routing itself raises: no such path, or not with this method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        response = await _answer_error(request, wrong_method(request.method, request.url.path))
        response.headers.update(error.headers or {})
        return response
    return await _answer_error(request, unknown_path(request.url.path) if error.status_code == 404 else error)


async def _answer_nobody(request: Request, error: Exception) -> Response:
    """The client left while its body was read."""
    return Response(status_code=400)
