import asyncio
from typing import Any

import msgspec
import pytest

from frontend.offline.sampling_params import SamplingParams, default_params, to_request
from frontend.request import GenerationRequest
from frontend.sampling_defaults import SamplingDefaults
from tests.helpers.serving import serving


def request(tiny_model: str, **params: Any) -> GenerationRequest:
    async def run() -> GenerationRequest:
        async with serving(tiny_model, max_model_len=100) as (services, _):
            return await to_request(services, [1, 2, 3], SamplingParams(**params))

    return asyncio.run(run())


def test_every_parameter_reaches_the_request(tiny_model: str) -> None:
    numbers = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "repetition_penalty": 1.1,
        "max_tokens": 9,
        "min_tokens": 2,
        "logprobs": 3,
        "seed": 4,
        "ignore_eos": True,
    }
    made = request(
        tiny_model,
        **numbers,
        n=2,
        stop="end",
        stop_token_ids=[8, 9],
        bad_words=["no"],
        prompt_logprobs=1,
        skip_special_tokens=False,
        logit_bias={5: -1.0},
        allowed_token_ids=[1, 2],
        include_stop_str_in_output=True,
    )
    sampling = msgspec.structs.asdict(made.sampling)
    assert {name: sampling[name] for name in numbers} == numbers
    assert sampling["stop_token_ids"] == (8, 9)
    assert sampling["allowed_token_ids"] == (1, 2)
    assert sampling["logit_bias"] == {5: -1.0}
    assert len(sampling["bad_words"]) == 2  # at the beginning of a text, and after a space
    assert (made.num_choices, made.stop, made.prompt_logprobs) == (2, ("end",), 1)
    assert (made.skip_special_tokens, made.include_stop_str_in_output) == (False, True)


def test_a_seed_is_drawn_where_none_is_given(tiny_model: str) -> None:
    assert request(tiny_model).sampling.seed != request(tiny_model).sampling.seed


def test_the_defaults_are_those_of_vllm(tiny_model: str) -> None:
    sampling = request(tiny_model).sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_k) == (16, 1.0, 0)
    assert request(tiny_model, top_k=-1).sampling.top_k == 0


def test_without_max_tokens_the_answer_may_fill_the_context(tiny_model: str) -> None:
    assert request(tiny_model, max_tokens=None).sampling.max_tokens == 97


@pytest.mark.parametrize(
    "wrong", [{"temperature": "hot"}, {"max_tokens": 1.5}, {"seed": 0.5}, {"logit_bias": {"a": 1.0}}, {"logprobs": "x"}]
)
def test_a_wrong_type_is_named(tiny_model: str, wrong: dict[str, Any]) -> None:
    [name] = wrong
    with pytest.raises(ValueError, match=f"sampling_params: .*{name}"):
        request(tiny_model, **wrong)


def test_the_model_recommends_what_is_used_without_parameters() -> None:
    params = default_params(SamplingDefaults(temperature=0.6, top_k=20, max_new_tokens=50))
    assert (params.temperature, params.top_k, params.top_p, params.max_tokens) == (0.6, 20, 1.0, 50)
    assert default_params(SamplingDefaults()) == SamplingParams()
