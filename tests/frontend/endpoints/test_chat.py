"""POST /v1/chat/completions against the fake engine, over real HTTP."""

from typing import Any

from frontend.settings import Settings
from protocol.codec import int32s
from tests.helpers.http_serving import MODEL, USER, HttpServer, http_serving
from tests.helpers.serving import DEADLINE_S


def ids_of(text: str, server: HttpServer) -> list[int]:
    return server.services.text.tokenizer.encode(text, add_special_tokens=False)


def content_of(events: list[Any], choice: int = 0) -> str:
    """The text of one choice, put together from its chunks."""
    chunks = [c for event in events[:-1] for c in event["choices"] if c["index"] == choice]
    return "".join(chunk["delta"].get("content", "") for chunk in chunks)


def last_prompt(server: HttpServer) -> str:
    ids = list(int32s(server.engine.submits[-1].prompt))
    return server.services.text.tokenizer.decode(ids, skip_special_tokens=False)


def test_a_stream_begins_with_the_role_and_ends_with_finish_and_done(server: HttpServer) -> None:
    server.engine.answer = ids_of("Hello you.", server)
    events = server.chat_events(max_tokens=50)
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert content_of(events) == "Hello you."
    finish = events[-2]["choices"][0]
    assert (finish["delta"], finish["finish_reason"]) == ({}, "stop")
    assert events[-1] == "[DONE]"
    assert len({(e["id"], e["created"], e["model"], e["object"]) for e in events[:-1]}) == 1
    assert events[0]["object"] == "chat.completion.chunk"


def test_each_token_is_an_event_of_its_own(server: HttpServer) -> None:
    server.engine.answer = ids_of("abcdef", server)
    texts = [e["choices"][0]["delta"].get("content") for e in server.chat_events(max_tokens=50)[:-1]]
    assert texts == ["", "a", "b", "c", "d", "e", "f", None]


def test_a_whole_answer_equals_the_streamed_one(server: HttpServer) -> None:
    asked = {"max_tokens": 40, "seed": 11}
    whole = server.chat(**asked)
    assert whole["choices"][0]["message"]["content"] == content_of(server.chat_events(**asked))
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == 40
    assert whole["object"] == "chat.completion"
    assert whole["id"].startswith("chatcmpl-")


def test_n_choices_have_their_own_indices_and_seeds(server: HttpServer) -> None:
    several = server.chat(n=3, seed=5, max_tokens=10)
    assert [choice["index"] for choice in several["choices"]] == [0, 1, 2]
    for choice in several["choices"]:
        alone = server.chat(seed=5 + choice["index"], max_tokens=10)
        assert choice["message"] == alone["choices"][0]["message"]
    assert several["usage"]["completion_tokens"] == 30
    events = server.chat_events(n=3, seed=5, max_tokens=10)
    assert [content_of(events, i) for i in range(3)] == [c["message"]["content"] for c in several["choices"]]


def test_usage_comes_in_a_last_chunk_if_asked_for(server: HttpServer) -> None:
    events = server.chat_events(max_tokens=3, seed=1, stream_options={"include_usage": True})
    assert events[-1] == "[DONE]"
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["completion_tokens"] == 3
    assert all(event["usage"] is None for event in events[:-2])
    assert all("usage" not in event for event in server.chat_events(max_tokens=3)[:-1])


def test_usage_in_each_chunk_if_asked_for(server: HttpServer) -> None:
    server.engine.answer = ids_of("abc", server)
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = server.chat_events(max_tokens=3, stream_options=options)
    assert [e["usage"]["completion_tokens"] for e in events[1:-2]] == [1, 2, 3]
    assert events[-2]["usage"]["completion_tokens"] == 3


def test_cached_tokens_are_in_the_usage(server: HttpServer) -> None:
    message = {"role": "user", "content": "The same question of more than sixteen tokens, twice."}
    server.chat(messages=[message], max_tokens=1)
    usage = server.chat(messages=[message], max_tokens=1)["usage"]
    assert 0 < usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]
    salted = server.chat(messages=[message], max_tokens=1, cache_salt="mine")["usage"]
    assert salted["prompt_tokens_details"]["cached_tokens"] == 0


def test_logprobs_name_tokens_and_bytes(server: HttpServer) -> None:
    server.engine.answer = ids_of("hé", server)
    choice = server.chat(max_tokens=3, logprobs=True, top_logprobs=2)["choices"][0]
    content = choice["logprobs"]["content"]
    assert [entry["bytes"] for entry in content] == [[104], [195], [169]]
    assert content[0]["token"] == "h"
    assert all(len(entry["top_logprobs"]) == 2 and entry["logprob"] < 0 for entry in content)
    assert content[0]["top_logprobs"][0] == {k: content[0][k] for k in ("token", "logprob", "bytes")}
    events = server.chat_events(max_tokens=3, logprobs=True, top_logprobs=2)
    streamed = [entry for e in events[1:-1] for entry in e["choices"][0]["logprobs"]["content"]]
    assert streamed == content


def test_logprobs_without_alternatives(server: HttpServer) -> None:
    content = server.chat(max_tokens=2, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert [entry["top_logprobs"] for entry in content] == [[], []]
    assert server.chat(max_tokens=2)["choices"][0]["logprobs"] is None


def test_a_stop_string_ends_the_answer_before_it(server: HttpServer) -> None:
    server.engine.answer = ids_of("one two three four", server)
    choice = server.chat(max_tokens=50, stop=["three", "never"])["choices"][0]
    assert choice["message"]["content"] == "one two "
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "three")
    kept = server.chat(max_tokens=50, stop="three", include_stop_str_in_output=True)["choices"][0]
    assert kept["message"]["content"] == "one two three"
    assert content_of(server.chat_events(max_tokens=50, stop="three")) == "one two "


def test_a_stop_token_is_the_stop_reason(server: HttpServer) -> None:
    server.engine.answer = [70, 71, 72, 73]
    choice = server.chat(max_tokens=50, stop_token_ids=[72])["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", 72)


def test_messages_go_through_the_template(server: HttpServer) -> None:
    server.chat(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        ],
        max_tokens=1,
    )
    assert last_prompt(server) == "<system>Be brief.</><user>a\nb</><assistant>"
    server.chat(add_generation_prompt=False, max_tokens=1)
    assert last_prompt(server) == "<user>Say something.</>"


def test_the_final_message_can_be_continued_and_echoed(server: HttpServer) -> None:
    server.engine.answer = ids_of(" two", server)
    messages = [USER, {"role": "assistant", "content": "one"}]
    answer = server.chat(messages=messages, continue_final_message=True, echo=True, max_tokens=20)
    assert last_prompt(server) == "<user>Say something.</><assistant>one"
    assert answer["choices"][0]["message"]["content"] == "one two"
    events = server.chat_events(messages=messages, continue_final_message=True, echo=True, max_tokens=20)
    assert content_of(events) == "one two"


def test_token_ids_are_returned_if_asked_for(server: HttpServer) -> None:
    answer = server.chat(max_tokens=4, seed=2, return_token_ids=True)
    assert len(answer["choices"][0]["token_ids"]) == 4
    assert answer["prompt_token_ids"] == list(int32s(server.engine.submits[-1].prompt))
    events = server.chat_events(max_tokens=4, seed=2, return_token_ids=True)
    assert events[0]["prompt_token_ids"] == answer["prompt_token_ids"]
    streamed = [token for e in events[1:-1] for token in e["choices"][0]["token_ids"]]
    assert streamed == answer["choices"][0]["token_ids"]
    assert "token_ids" not in server.chat(max_tokens=1)["choices"][0]


def test_prompt_logprobs_stand_beside_the_choices(server: HttpServer) -> None:
    answer = server.chat(max_tokens=1, prompt_logprobs=2)
    logprobs = answer["prompt_logprobs"]
    assert logprobs[0] is None
    assert len(logprobs) == answer["usage"]["prompt_tokens"]
    assert all(len(position) == 2 for position in logprobs[1:])
    token = list(int32s(server.engine.submits[-1].prompt))[1]
    assert logprobs[1][str(token)]["decoded_token"] == server.services.text.tokenizer.token_text(token)


def test_parameters_reach_the_engine_as_asked(server: HttpServer) -> None:
    server.chat(
        temperature=0.5,
        top_p=0.9,
        top_k=-1,
        min_p=0.1,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        repetition_penalty=1.1,
        logit_bias={"7": -5},
        allowed_token_ids=[7, 8, 9],
        bad_words=["ab"],
        seed=-1,
        min_tokens=2,
        max_completion_tokens=4,
        ignore_eos=True,
    )
    sampling = server.engine.submits[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 0, 0.1)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty) == (0.5, -0.5, 1.1)
    assert (sampling.logit_bias, sampling.allowed_token_ids) == ({7: -5.0}, (7, 8, 9))
    assert sampling.bad_words == (tuple(ids_of("ab", server)), tuple(ids_of(" ab", server)))
    assert (sampling.seed, sampling.min_tokens, sampling.max_tokens) == (2**64 - 1, 2, 4)
    assert sampling.ignore_eos


def test_without_max_tokens_the_context_is_the_limit(server: HttpServer) -> None:
    server.engine.answer = [70]
    answer = server.chat()
    submit = server.engine.submits[-1]
    assert submit.sampling.max_tokens == server.engine.max_model_len - answer["usage"]["prompt_tokens"]


def test_every_request_has_its_own_seed(server: HttpServer) -> None:
    for _ in range(3):
        server.chat(max_tokens=1)
    assert len({submit.sampling.seed for submit in server.engine.submits[-3:]}) == 3


def test_fields_without_effect_are_accepted(server: HttpServer) -> None:
    server.chat(
        max_tokens=1,
        user="me",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        modalities=["text"],
        response_format={"type": "text"},
        tools=[],
        tool_choice="none",
        best_of=1,
        stop=None,
        logit_bias=None,
    )


def test_the_request_id_becomes_part_of_the_id(server: HttpServer) -> None:
    assert server.chat(max_tokens=1, request_id="mine-7")["id"] == "chatcmpl-mine-7"


def test_a_silent_stream_is_kept_alive_by_comments(chat_model: str) -> None:
    with http_serving(chat_model, settings=Settings(model=MODEL, sse_keep_alive_interval=0.05)) as server:
        server.engine.paused = True
        body = {"messages": [USER], "stream": True, "max_tokens": 2}
        with server.client.stream("POST", "/v1/chat/completions", json=body, timeout=DEADLINE_S) as response:
            lines = response.iter_lines()
            assert [next(lines) for _ in range(4)] == [": keep-alive", "", ": keep-alive", ""]
            server.engine.paused = False
            assert [line for line in lines if line][-1] == "data: [DONE]"
