"""`from headrace import LLM` with the real engine and the demo model."""

from collections.abc import Iterator

import pytest

from headrace import LLM, SamplingParams
from protocol.launch import ModelFiles

PROMPTS = ["The capital of France is", "Water boils at a temperature of", "1, 2, 3, 4,", "Once upon a time"]
GREEDY = SamplingParams(temperature=0, max_tokens=12, logprobs=1, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(demo_files: ModelFiles) -> Iterator[LLM]:
    """`demo_files` only makes sure that the model is on this host."""
    with LLM(demo_files.name, dtype="float32", max_model_len=512, kv_cache_memory_bytes=256 * 1024**2) as llm:
        yield llm


def test_one_by_one_and_all_at_once_are_the_same(llm: LLM) -> None:
    at_once = [output.outputs[0] for output in llm.generate(PROMPTS, GREEDY)]
    alone = [llm.generate(prompt, GREEDY)[0].outputs[0] for prompt in PROMPTS]
    assert [choice.token_ids for choice in at_once] == [choice.token_ids for choice in alone]
    assert [choice.text for choice in at_once] == [choice.text for choice in alone]
    assert at_once[0].text.startswith(" Paris")
    for together, single in zip(at_once, alone, strict=True):
        assert together.cumulative_logprob == pytest.approx(single.cumulative_logprob, abs=1e-2)
        assert together.logprobs is not None
        assert all(entry[token].rank == 1 for entry, token in zip(together.logprobs, together.token_ids, strict=True))


def test_a_seed_decides_and_choices_differ(llm: LLM) -> None:
    params = SamplingParams(n=2, seed=3, max_tokens=16, ignore_eos=True)
    first, again = (llm.generate("Once upon a time", params)[0].outputs for _ in range(2))
    assert first == again
    assert first[0].token_ids != first[1].token_ids


def test_a_chat_is_answered(llm: LLM) -> None:
    question = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
    [output] = llm.chat(question, SamplingParams(temperature=0, max_tokens=20))
    assert "Paris" in output.outputs[0].text
