import json
from pathlib import Path

import pytest

from frontend.bench_serve.questions import Questions, read_questions
from frontend.bench_serve.workloads import fixed_workload, named_workload, workload_names


def test_a_named_workload_has_the_lengths_it_says() -> None:
    workload = named_workload("w1", num_prompts=None, vocab_size=40_000)
    prompts = list(workload.prompts(1))
    assert len(prompts) == 256
    assert all(100 <= len(prompt.content) <= 1024 and 100 <= prompt.max_tokens <= 1024 for prompt in prompts)
    assert len({prompt.max_tokens for prompt in prompts}) > 100
    assert workload.sampling == {"temperature": 0.6, "ignore_eos": True}


@pytest.mark.parametrize("name", workload_names())
def test_repetitions_differ_and_are_the_same_each_time(name: str) -> None:
    workload = named_workload(name, num_prompts=2, vocab_size=40_000)
    first, again, second = (next(workload.prompts(rep)) for rep in (0, 0, 1))
    assert first == again
    assert first.content[:16] != second.content[:16]
    assert workload.num_prompts <= 2


def test_ids_stay_below_the_vocabulary() -> None:
    workload = fixed_workload(input_len=2000, output_len=1, num_prompts=1, vocab_size=50, seed=0)
    assert set(next(workload.prompts(0)).content) == set(range(50))


CONVERSATIONS = [
    {"id": "1", "conversations": [{"from": "human", "value": "one"}, {"from": "gpt", "value": "no"}]},
    {"id": "2", "conversations": [{"from": "gpt", "value": "no"}, {"from": "human", "value": "no"}]},
    {"messages": [{"role": "system", "content": "no"}, {"role": "user", "content": "two"}]},
    {"conversations": []},
]


def test_the_first_question_of_each_conversation_is_read(tmp_path: Path) -> None:
    as_list, as_lines = tmp_path / "a.json", tmp_path / "b.jsonl"
    as_list.write_text(json.dumps(CONVERSATIONS))
    as_lines.write_text("\n".join(map(json.dumps, CONVERSATIONS)))
    assert read_questions(as_list) == read_questions(as_lines) == ["one", "two"]


@pytest.mark.parametrize("text", ["", "[]", "hello", "[1]", '[{"conversations": [{"from": "gpt", "value": "x"}]}]'])
def test_a_file_without_questions_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="wrong.json"):
        read_questions(path)


def test_too_few_questions_are_asked_over_again() -> None:
    questions = Questions(name="q", questions=["a", "b", "c"], num_prompts=7, max_tokens=5, seed=0, sampling={})
    asked = [prompt.content for prompt in questions.prompts(0)]
    assert sorted(asked[:3]) == sorted(asked[3:6]) == ["a", "b", "c"]
    assert len(asked) == 7
