"""What both generating routes do with a body before they look at its prompt, and with a plan after it."""

import secrets
import time

from starlette.responses import Response

from frontend.admission import refuse_if_full
from frontend.endpoints.body import served_model
from frontend.endpoints.generations import AnswerPlan
from frontend.endpoints.responses import StreamResponse, WholeResponse
from frontend.openai_bodies.fields import SamplingFields
from frontend.services import Services
from frontend.translate.answer import AnswerFacts
from frontend.translate.limits import check_limits
from frontend.translate.refusals import check_refused
from headrace import __version__

FINGERPRINT = f"headrace-{__version__}"


def begin_answer(services: Services, body: SamplingFields, *, id_prefix: str) -> AnswerFacts:
    """Refuse what can be refused without the prompt. Raises `ApiError`."""
    model = served_model(services, body.model)
    check_refused(body)
    check_limits(body, services.settings)
    if services.engine.ready is not None:
        refuse_if_full(services.engine.ready, services.engine.heartbeat)
    return AnswerFacts(
        id=id_prefix + (body.request_id or secrets.token_hex(16)),
        created=int(time.time()),
        model=model,
        fingerprint=FINGERPRINT,
        include_usage=wants_usage(body),
        return_token_ids=body.return_token_ids or False,
    )


def wants_usage(body: SamplingFields) -> bool:
    """Whether a stream ends with a usage chunk."""
    return body.stream_options is not None and bool(body.stream_options.include_usage)


def wants_usage_in_each_chunk(body: SamplingFields) -> bool:
    """Only together with the usage at the end, as elsewhere."""
    return wants_usage(body) and body.stream_options is not None and bool(body.stream_options.continuous_usage_stats)


def respond(services: Services, body: SamplingFields, plan: AnswerPlan) -> Response:
    """Streamed or whole."""
    return StreamResponse(services, plan) if body.stream else WholeResponse(services, plan)
