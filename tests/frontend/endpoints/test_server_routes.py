"""Routes about models, tokens and the server itself."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from frontend.settings import Settings
from headrace import __version__
from tests.helpers.http_serving import MODEL, USER, HttpServer, http_serving


def test_models_have_all_names_and_the_context(chat_model: str) -> None:
    settings = Settings(model="folder/model", served_model_name=("first", "org/second"))
    with http_serving(chat_model, settings=settings) as server:
        cards = server.client.get("/v1/models").json()["data"]
        assert [(card["id"], card["root"], card["max_model_len"]) for card in cards] == [
            ("first", "folder/model", 2048),
            ("org/second", "folder/model", 2048),
        ]
        assert server.client.get("/v1/models/org/second").json()["id"] == "org/second"
        assert server.complete(model="org/second", max_tokens=1)["model"] == "org/second"
        assert server.complete(max_tokens=1)["model"] == "first"
        missing = server.client.get("/v1/models/folder/model")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_tokenize_and_detokenize_are_inverse(server: HttpServer) -> None:
    answer = server.post("/tokenize", prompt="héllo", return_token_strs=True).json()
    assert answer["count"] == len(answer["tokens"]) == 6
    assert answer["max_model_len"] == 2048
    assert answer["token_strs"][0] == "h"
    assert server.post("/detokenize", tokens=answer["tokens"]).json() == {"prompt": "héllo"}


def test_messages_are_tokenized_as_a_chat_would(server: HttpServer) -> None:
    tokens = server.post("/tokenize", messages=[USER]).json()["tokens"]
    assert server.post("/detokenize", tokens=tokens).json()["prompt"] == "<user>Say something.</><assistant>"
    usage = server.chat(max_tokens=1)["usage"]
    assert usage["prompt_tokens"] == len(tokens)


def test_version_and_load(server: HttpServer) -> None:
    assert server.client.get("/version").json() == {"version": __version__}
    assert server.client.get("/load").json() == {"server_load": 0}


def test_load_is_that_of_all_live_api_servers_without_the_question(server: HttpServer) -> None:
    board, row = server.services.scoreboard, server.services.row
    row.begin(77)
    board.set_current(1, 77)
    row.set("in_flight", 5)
    assert server.client.get("/load").json() == {"server_load": 4}
    board.set_current(1, 0)
    assert server.client.get("/load").json() == {"server_load": 0}


def test_metrics_count_requests_and_tokens(chat_model: str) -> None:
    with http_serving(chat_model) as server:
        server.complete(prompt=[5, 6, 7], max_tokens=4, n=2)
        response = server.client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=")
        samples = {
            (sample.name, sample.labels.get("finished_reason"), sample.labels.get("le")): sample
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }
        assert samples["headrace_generation_tokens_total", None, None].value == 8
        assert samples["headrace_prompt_tokens_total", None, None].value == 3
        assert samples["headrace_prompt_tokens_total", None, None].labels == {"model_name": MODEL, "engine": "0"}
        assert samples["headrace_request_success_total", "length", None].value == 2
        assert samples["headrace_time_to_first_token_seconds_count", None, None].value == 2
        assert samples["headrace_time_to_first_token_seconds_bucket", None, "+Inf"].value == 2
        assert samples["headrace_inter_token_latency_seconds_count", None, None].value == 6
        assert samples["headrace_e2e_request_latency_seconds_sum", None, None].value > 0


def test_metrics_take_another_prefix(chat_model: str) -> None:
    with http_serving(chat_model, settings=Settings(model=MODEL, metrics_prefix="vllm:")) as server:
        text = server.client.get("/metrics").text
        assert 'vllm:request_success_total{engine="0",finished_reason="stop",model_name="fake"} 0.0' in text
        assert "headrace_" not in text


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_docs_are_there_unless_disabled(chat_model: str, server: HttpServer, path: str) -> None:
    assert server.client.get(path).status_code == 200
    with http_serving(chat_model, settings=Settings(model=MODEL, disable_fastapi_docs=True)) as without:
        assert without.client.get(path).status_code == 404


def test_the_openapi_document_has_the_bodies(server: HttpServer) -> None:
    document = server.client.get("/openapi.json").json()
    chat = document["paths"]["/v1/chat/completions"]["post"]
    reference = chat["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    body = document["components"]["schemas"][reference.rsplit("/", 1)[1]]
    assert "messages" in body["required"]
    assert {"temperature", "top_k", "min_p", "stream_options"} <= set(body["properties"])
    answer = chat["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    assert answer.endswith("/ChatCompletion")
    assert "text/event-stream" in chat["responses"]["200"]["content"]
    assert [p["name"] for p in document["paths"]["/v1/models/{model_id}"]["get"]["parameters"]] == ["model_id"]
    assert document["paths"]["/readyz"]["get"]["responses"]["503"]["content"]
    references = _references(document)
    assert all(reference.rsplit("/", 1)[1] in document["components"]["schemas"] for reference in references)


def _references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(_references(value) for value in node.values()))
    if isinstance(node, list):
        return set().union(*(_references(value) for value in node))
    return set()


def test_unknown_fields_can_be_allowed(chat_model: str) -> None:
    with http_serving(chat_model, settings=Settings(model=MODEL, allow_unknown_fields=True)) as server:
        server.chat(messages=[{"role": "user", "content": "x", "colour": 1}], temprature=1, max_tokens=1)


def test_priority_can_be_allowed(chat_model: str) -> None:
    with http_serving(chat_model, settings=Settings(model=MODEL, enable_request_priority=True)) as server:
        server.chat(priority=-3, max_tokens=1)
        assert server.engine.submits[-1].priority == -3
