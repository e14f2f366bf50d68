"""Bad input of every kind: the exact status, the field that is named, and the next request is served."""

from typing import Any

import pytest

from tests.helpers.http_serving import USER, HttpServer

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"

# what it is, path, fields of the body, status, param
FIELDS: list[tuple[str, str, dict[str, Any], int, str | None]] = [
    ("no messages", CHAT, {"messages": None}, 400, "messages"),
    ("empty messages", CHAT, {"messages": []}, 400, "messages"),
    ("unknown role", CHAT, {"messages": [{"role": "bot", "content": "x"}]}, 400, "messages[0].role"),
    ("no content", CHAT, {"messages": [{"role": "user"}]}, 400, "messages[0].content"),
    ("content of wrong type", CHAT, {"messages": [{"role": "user", "content": 7}]}, 400, "messages[0].content"),
    (
        "image",
        CHAT,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
        400,
        "messages[0].content[0]",
    ),
    ("unknown field of a message", CHAT, {"messages": [USER | {"colour": 1}]}, 400, "messages[0].colour"),
    ("unknown field", CHAT, {"temprature": 1}, 400, "temprature"),
    ("unknown stream option", CHAT, {"stream": True, "stream_options": {"x": 1}}, 400, "stream_options.x"),
    ("stream options without stream", CHAT, {"stream_options": {"include_usage": True}}, 400, "stream_options"),
    ("text for a number", CHAT, {"temperature": "hot"}, 400, "temperature"),
    ("number for a flag", CHAT, {"stream": 1}, 400, "stream"),
    ("flag for a number", CHAT, {"max_tokens": True}, 400, "max_tokens"),
    ("fraction for a whole number", CHAT, {"n": 1.5}, 400, "n"),
    ("temperature too high", CHAT, {"temperature": 2.1}, 400, "temperature"),
    ("temperature negative", CHAT, {"temperature": -0.1}, 400, "temperature"),
    ("top_p zero", CHAT, {"top_p": 0}, 400, "top_p"),
    ("top_p above one", CHAT, {"top_p": 1.01}, 400, "top_p"),
    ("min_p negative", CHAT, {"min_p": -0.5}, 400, "min_p"),
    ("top_k below minus one", CHAT, {"top_k": -2}, 400, "top_k"),
    ("presence_penalty", CHAT, {"presence_penalty": 2.5}, 400, "presence_penalty"),
    ("frequency_penalty", CHAT, {"frequency_penalty": -3}, 400, "frequency_penalty"),
    ("repetition_penalty", CHAT, {"repetition_penalty": 0}, 400, "repetition_penalty"),
    ("n zero", CHAT, {"n": 0}, 400, "n"),
    ("n huge", CHAT, {"n": 2_000_000_000}, 400, "n"),
    ("n beyond any integer", CHAT, {"n": 10**30}, 400, "n"),
    ("seed beyond 64 bits", CHAT, {"seed": 2**64}, 400, "seed"),
    ("max_tokens zero", CHAT, {"max_tokens": 0}, 400, "max_tokens"),
    ("max_tokens beyond the context", CHAT, {"max_tokens": 5000}, 400, "max_tokens"),
    ("max_completion_tokens too", CHAT, {"max_completion_tokens": 5000}, 400, "max_completion_tokens"),
    ("min_tokens above max_tokens", CHAT, {"max_tokens": 2, "min_tokens": 3}, 400, "min_tokens"),
    ("top_logprobs without logprobs", CHAT, {"top_logprobs": 2}, 400, "top_logprobs"),
    ("too many top_logprobs", CHAT, {"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs"),
    ("number for chat's logprobs", CHAT, {"logprobs": 2}, 400, "logprobs"),
    ("too many logprobs", TEXT, {"logprobs": 21}, 400, "logprobs"),
    ("too many prompt_logprobs", TEXT, {"prompt_logprobs": 21}, 400, "prompt_logprobs"),
    ("too many stop strings", CHAT, {"stop": ["x"] * 17}, 400, "stop"),
    ("stop string too long", CHAT, {"stop": "x" * 65}, 400, "stop"),
    ("empty stop string", CHAT, {"stop": ["a", ""]}, 400, "stop"),
    ("stop token out of range", CHAT, {"stop_token_ids": [256]}, 400, "stop_token_ids"),
    ("bias of a token out of range", CHAT, {"logit_bias": {"256": 1}}, 400, "logit_bias"),
    ("bias of no token", CHAT, {"logit_bias": {"x": 1}}, 400, "logit_bias"),
    ("bias too large", CHAT, {"logit_bias": {"1": 101}}, 400, "logit_bias"),
    ("allowed token out of range", CHAT, {"allowed_token_ids": [999]}, 400, "allowed_token_ids"),
    ("no allowed token", CHAT, {"allowed_token_ids": []}, 400, "allowed_token_ids"),
    ("empty bad word", CHAT, {"bad_words": [""]}, 400, "bad_words[0]"),
    ("too many bad words", CHAT, {"bad_words": ["a"] * 65}, 400, "bad_words"),
    ("priority without its flag", CHAT, {"priority": 1}, 400, "priority"),
    ("request id with a line break", CHAT, {"request_id": "a\nb"}, 400, "request_id"),
    ("template from a request", CHAT, {"chat_template": "{{ 1 }}"}, 400, "chat_template"),
    ("template argument of wrong type", CHAT, {"chat_template_kwargs": {"a": [1]}}, 400, "chat_template_kwargs"),
    ("two ends", CHAT, {"continue_final_message": True, "add_generation_prompt": True}, 400, "messages"),
    ("tools", CHAT, {"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tools"),
    ("response format", CHAT, {"response_format": {"type": "json_object"}}, 400, "response_format"),
    ("best_of", TEXT, {"n": 2, "best_of": 3}, 400, "best_of"),
    ("suffix", TEXT, {"suffix": "end"}, 400, "suffix"),
    ("unknown model", CHAT, {"model": "gpt-5"}, 404, "model"),
    ("empty prompt", TEXT, {"prompt": ""}, 400, "prompt"),
    ("empty list of prompts", TEXT, {"prompt": []}, 400, "prompt"),
    ("empty list of ids", TEXT, {"prompt": [[]]}, 400, "prompt"),
    ("mixed prompt", TEXT, {"prompt": [1, "a"]}, 400, "prompt"),
    ("too many prompts", TEXT, {"prompt": ["a"] * 1025}, 400, "prompt"),
    ("token id out of range", TEXT, {"prompt": [1, 256]}, 400, "prompt"),
    ("negative token id", TEXT, {"prompt": [-1]}, 400, "prompt[0]"),
    ("prompt of wrong type", TEXT, {"prompt": {"a": 1}}, 400, "prompt"),
    ("too many prompt tokens", TEXT, {"prompt": [1] * 2048}, 400, "prompt"),
    ("too long a text", TEXT, {"prompt": "a" * 100_000}, 400, "prompt"),
    ("too long messages", CHAT, {"messages": [{"role": "user", "content": "a" * 3000}]}, 400, "messages"),
    ("detokenize out of range", "/detokenize", {"tokens": [256]}, 400, "tokens"),
    ("tokenize nothing", "/tokenize", {}, 400, "prompt"),
]
USUAL: dict[str, dict[str, Any]] = {CHAT: {"messages": [USER]}, TEXT: {"prompt": [5, 6]}}


def served(server: HttpServer) -> bool:
    """Whether the next request is answered in full."""
    return bool(server.complete(max_tokens=2)["usage"]["completion_tokens"] == 2)


def check_error(response: Any, status: int, param: str | None) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param, error
    assert error["type"] == "invalid_request_error"
    assert error["message"]


@pytest.mark.parametrize(
    ("path", "fields", "status", "param"), [case[1:] for case in FIELDS], ids=[c[0] for c in FIELDS]
)
def test_a_bad_field_is_named(
    server: HttpServer, path: str, fields: dict[str, Any], status: int, param: str | None
) -> None:
    body = {key: value for key, value in (USUAL.get(path, {}) | fields).items() if value is not None}
    submits = len(server.engine.submits)
    check_error(server.post(path, **body), status, param)
    assert len(server.engine.submits) == submits
    assert served(server)


def test_a_stream_that_never_began_is_refused_by_its_status(server: HttpServer) -> None:
    check_error(server.post(CHAT, messages=[USER], stream=True, temperature=3), 400, "temperature")
    check_error(server.post(TEXT, prompt=[256], stream=True), 400, "prompt")
    assert served(server)


DEEP = b'{"messages": [], "user": ' + b'{"a":' * 64 + b"1" + b"}" * 65
BYTES: list[tuple[str, bytes, str, int, str | None]] = [
    ("nothing", b"", "application/json", 400, None),
    ("no JSON", b"hello", "application/json", 400, None),
    ("half a JSON", b'{"messages": [', "application/json", 400, None),
    ("more after the JSON", b'{"messages": []} x', "application/json", 400, None),
    ("a list", b"[]", "application/json", 400, None),
    ("no number", b'{"messages": [], "temperature": NaN}', "application/json", 400, None),
    ("number out of range", b'{"messages": [], "temperature": 1e999}', "application/json", 400, "temperature"),
    ("bad UTF-8", b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}', "application/json", 400, None),
    ("lone surrogate", b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "application/json", 400, None),
    ("deep JSON", b'{"messages": ' + b"[" * 100_000, "application/json", 400, None),
    ("deep JSON in an ignored field", DEEP, "application/json", 400, None),
    ("20 MiB", b'{"prompt": "' + b"a" * (20 << 20) + b'"}', "application/json", 413, None),
    ("form", b"prompt=a", "application/x-www-form-urlencoded", 415, None),
    ("no media type", b'{"prompt": "a"}', "", 415, None),
]


@pytest.mark.parametrize(("data", "media_type", "status", "param"), [c[1:] for c in BYTES], ids=[c[0] for c in BYTES])
def test_a_bad_body_is_refused(
    server: HttpServer, data: bytes, media_type: str, status: int, param: str | None
) -> None:
    headers = {"content-type": media_type} if media_type else {}
    check_error(server.client.post(CHAT, content=data, headers=headers), status, param)
    assert served(server)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nothing", 404), ("POST", "/v1/models", 405), ("GET", CHAT, 405), ("GET", "/v1/models/", 404)],
)
def test_unknown_paths_and_methods(server: HttpServer, method: str, path: str, status: int) -> None:
    response = server.client.request(method, path)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (status, "invalid_request_error")
    assert path in error["message"] or status == 404
    if status == 405:
        assert response.headers["allow"]


def test_brackets_in_strings_are_no_depth(server: HttpServer) -> None:
    server.chat(messages=[{"role": "user", "content": '["\\' + "[" * 200}], max_tokens=1)
    server.chat(messages=[USER] * 20, max_tokens=1)
