"""POST /v1/completions against the fake engine, over real HTTP."""

from typing import Any

from protocol.codec import int32s
from tests.helpers.http_serving import HttpServer


def ids_of(text: str, server: HttpServer) -> list[int]:
    return server.services.text.tokenizer.encode(text, add_special_tokens=False)


def text_of(events: list[Any], choice: int = 0) -> str:
    return "".join(c["text"] for event in events[:-1] for c in event["choices"] if c["index"] == choice)


def test_a_text_is_continued_whole_and_streamed(server: HttpServer) -> None:
    server.engine.answer = ids_of(" lake", server)
    answer = server.complete(prompt="The headrace fills the", max_tokens=20)
    assert answer["choices"][0]["text"] == " lake"
    assert (answer["choices"][0]["finish_reason"], answer["object"]) == ("stop", "text_completion")
    assert answer["usage"]["prompt_tokens"] == len("The headrace fills the")
    assert answer["id"].startswith("cmpl-")
    events = server.completion_events(prompt="The headrace fills the", max_tokens=20)
    assert text_of(events) == " lake"
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1] == "[DONE]"


def test_sixteen_tokens_are_the_default(server: HttpServer) -> None:
    assert server.complete()["usage"]["completion_tokens"] == 16


def test_lists_of_prompts_give_choices_in_their_order(server: HttpServer) -> None:
    prompts = ["one", "three", [5, 6]]
    answer = server.complete(prompt=prompts, n=2, seed=3, max_tokens=6)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3, 4, 5]
    for index, prompt in enumerate(prompts):
        alone = server.complete(prompt=prompt, n=2, seed=3, max_tokens=6)
        texts = [choice["text"] for choice in answer["choices"][2 * index : 2 * index + 2]]
        assert texts == [choice["text"] for choice in alone["choices"]]
    assert answer["usage"]["prompt_tokens"] == 3 + 5 + 2
    assert answer["usage"]["completion_tokens"] == 6 * 6
    events = server.completion_events(prompt=prompts, n=2, seed=3, max_tokens=6)
    assert [text_of(events, i) for i in range(6)] == [choice["text"] for choice in answer["choices"]]
    assert events.count("[DONE]") == 1


def test_token_ids_are_a_prompt(server: HttpServer) -> None:
    server.complete(prompt=[9, 8, 7], max_tokens=1)
    assert list(int32s(server.engine.submits[-1].prompt)) == [9, 8, 7]


def test_logprobs_are_parallel_lists_with_offsets(server: HttpServer) -> None:
    server.engine.answer = ids_of("abc", server)
    logprobs = server.complete(max_tokens=3, logprobs=2)["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["a", "b", "c"]
    assert logprobs["text_offset"] == [0, 1, 2]
    assert all(value < 0 for value in logprobs["token_logprobs"])
    assert [len(top) for top in logprobs["top_logprobs"]] == [2, 2, 2]
    events = server.completion_events(max_tokens=3, logprobs=2)
    streamed = [event["choices"][0]["logprobs"] for event in events[:-1]]
    for key, values in logprobs.items():
        assert [value for part in streamed for value in part[key]] == values
    drawn = server.complete(max_tokens=1, logprobs=0)["choices"][0]["logprobs"]["top_logprobs"][0]
    assert list(drawn) == ["a"]


def test_echo_puts_the_prompt_before_the_answer(server: HttpServer) -> None:
    server.engine.answer = ids_of("cd", server)
    assert server.complete(prompt="ab", echo=True, max_tokens=9)["choices"][0]["text"] == "abcd"
    assert server.complete(prompt=ids_of("ab", server), echo=True, max_tokens=9)["choices"][0]["text"] == "abcd"
    assert text_of(server.completion_events(prompt="ab", echo=True, max_tokens=9)) == "abcd"


def test_echo_with_logprobs_has_those_of_the_prompt(server: HttpServer) -> None:
    server.engine.answer = ids_of("cd", server)
    logprobs = server.complete(prompt="ab", echo=True, logprobs=1, max_tokens=2)["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["a", "b", "c", "d"]
    assert logprobs["text_offset"] == [0, 1, 2, 3]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert None not in logprobs["token_logprobs"][1:]
    events = server.completion_events(prompt="ab", echo=True, logprobs=1, max_tokens=2)
    streamed = [event["choices"][0]["logprobs"] for event in events[:-1]]
    for key in ("tokens", "text_offset"):
        assert [value for part in streamed for value in part[key]] == logprobs[key]


def test_max_tokens_zero_with_echo_scores_the_prompt(server: HttpServer) -> None:
    answer = server.complete(prompt="ab", echo=True, logprobs=1, max_tokens=0)
    choice = answer["choices"][0]
    assert (choice["text"], choice["logprobs"]["tokens"], choice["finish_reason"]) == ("ab", ["a", "b"], "length")
    assert answer["usage"]["completion_tokens"] == 0
    assert text_of(server.completion_events(prompt="ab", echo=True, max_tokens=0)) == "ab"


def test_prompt_logprobs_belong_to_their_choice(server: HttpServer) -> None:
    choices = server.complete(prompt=["ab", "xyz"], prompt_logprobs=1, max_tokens=1)["choices"]
    assert [len(choice["prompt_logprobs"]) for choice in choices] == [2, 3]
    assert all(choice["prompt_logprobs"][0] is None for choice in choices)
    assert choices[0]["logprobs"] is None
    (event, *_) = server.completion_events(prompt="ab", prompt_logprobs=1, max_tokens=1)
    assert event["choices"][0]["prompt_logprobs"] == choices[0]["prompt_logprobs"]


def test_token_ids_are_returned_if_asked_for(server: HttpServer) -> None:
    choice = server.complete(prompt=[5, 6], max_tokens=3, return_token_ids=True)["choices"][0]
    assert choice["prompt_token_ids"] == [5, 6]
    assert len(choice["token_ids"]) == 3


def test_truncate_keeps_the_prompts_end(server: HttpServer) -> None:
    server.complete(prompt=list(range(10)), truncate_prompt_tokens=3, max_tokens=1)
    assert list(int32s(server.engine.submits[-1].prompt)) == [7, 8, 9]
    server.complete(prompt=[7] * 5000, truncate_prompt_tokens=-1, max_tokens=10)
    assert len(int32s(server.engine.submits[-1].prompt)) == server.engine.max_model_len - 10


def test_a_special_token_can_be_shown(server: HttpServer) -> None:
    server.complete(prompt="a", max_tokens=1, skip_special_tokens=False, spaces_between_special_tokens=False)
    server.complete(prompt="a", max_tokens=1, add_special_tokens=False)


def test_one_failing_prompt_ends_the_others(server: HttpServer) -> None:
    aborts = len(server.engine.aborts)
    server.engine.paused = True
    response = server.post("/v1/completions", prompt=[[5, 6], [7, 999]], max_tokens=100)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "prompt")
    server.wait_until(lambda: len(server.engine.aborts) == aborts + 1)


def test_a_long_text_is_truncated_to_the_same_ids(server: HttpServer) -> None:
    server.complete(prompt="ab" * 50_000 + "xyz", truncate_prompt_tokens=5, max_tokens=1)
    assert list(int32s(server.engine.submits[-1].prompt)) == ids_of("abxyz", server)
