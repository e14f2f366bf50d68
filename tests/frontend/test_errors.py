"""Every failure has OpenAI's shape, the right status, and tells of ourselves only what is meant for clients."""

import json

import pytest

from frontend import errors
from frontend.errors import ApiError
from protocol.errors import InvalidField
from protocol.messages import FailureCode, RequestFailed


@pytest.mark.parametrize(
    ("error", "status", "param", "code"),
    [
        (errors.invalid("n", "n must be between 1 and 16, not 17"), 400, "n", None),
        (errors.context_too_long("too long", param="prompt"), 400, "prompt", "context_length_exceeded"),
        (errors.wrong_key(), 401, None, "invalid_api_key"),
        (errors.unknown_path("/v2"), 404, None, "not_found"),
        (errors.unknown_model("gpt", ("demo",)), 404, "model", "model_not_found"),
        (errors.wrong_method("GET", "/v1/completions"), 405, None, "method_not_allowed"),
        (errors.too_slow("header", 10.0), 408, None, "request_timeout"),
        (errors.body_too_large(16), 413, None, "body_too_large"),
        (errors.wrong_media_type("text/plain"), 415, None, "unsupported_media_type"),
        (errors.overloaded("full"), 429, None, "overloaded"),
        (errors.header_too_large("100 fields"), 431, None, "header_too_large"),
        (errors.internal("a defect"), 500, None, "internal_error"),
        (errors.unavailable("starting"), 503, None, "starting"),
    ],
)
def test_every_kind_has_openais_shape(error: ApiError, status: int, param: str | None, code: str | None) -> None:
    body = json.loads(error.body)
    assert body == {"error": {"message": error.message, "type": error.type, "param": param, "code": code}}
    assert error.status == status
    assert body["error"]["type"] == {4: "invalid_request_error", 5: "server_error"}[status // 100] or status == 429


@pytest.mark.parametrize("error", [errors.overloaded("full", retry_after_s=0.2), errors.unavailable("draining")])
def test_what_may_be_tried_again_says_when(error: ApiError) -> None:
    assert error.headers == [(b"retry-after", b"1")]


def test_what_may_not_be_tried_again_says_nothing() -> None:
    assert errors.internal("a defect").headers == []


def test_a_field_out_of_bounds_is_a_bad_request_that_names_it() -> None:
    error = errors.from_exception(InvalidField("top_p", "top_p must be at most 1"))
    assert (error.status, error.param, error.message) == (400, "top_p", "top_p must be at most 1")


def test_an_api_error_is_itself() -> None:
    error = errors.unavailable("starting")
    assert errors.from_exception(error) is error


def test_a_defect_tells_clients_nothing_of_us() -> None:
    error = errors.from_exception(KeyError("/etc/secret"))
    assert (error.status, "secret" in error.message) == (500, False)


@pytest.mark.parametrize(
    ("code", "status"), [("invalid", 400), ("overloaded", 429), ("draining", 503), ("internal", 500)]
)
def test_an_engines_failure_keeps_its_meaning(code: FailureCode, status: int) -> None:
    failure = RequestFailed(seq=0, epoch=1, number=2, code=code, message="m", field="f", retry_after_s=2.5)
    error = errors.from_failure(failure)
    assert error.status == status
    assert error.param == ("f" if code == "invalid" else None)
    if code == "overloaded":
        assert error.headers == [(b"retry-after", b"3")]
