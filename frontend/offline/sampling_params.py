"""How a request of a Python program chooses its tokens. The names are vLLM's, and so is the default of `max_tokens`."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from frontend.endpoints.prompts import encode_bad_words
from frontend.request import GenerationRequest
from frontend.sampling_defaults import SamplingDefaults
from frontend.services import Services
from protocol.sampling import Sampling

_SEEDS = 2**64


@dataclass(kw_only=True)
class SamplingParams:
    """Limits and words of each field are those of the HTTP request's field of the same name."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0 or -1 keeps all
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] | None = None
    max_tokens: int | None = 16  # None: up to the context's end
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    seed: int | None = None
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    include_stop_str_in_output: bool = False


def default_params(defaults: SamplingDefaults) -> SamplingParams:
    """What a request gets that brings none: the model's own recommendation."""
    return SamplingParams(
        temperature=defaults.temperature,
        top_p=defaults.top_p,
        top_k=defaults.top_k,
        min_p=defaults.min_p,
        repetition_penalty=defaults.repetition_penalty,
        max_tokens=defaults.max_new_tokens or 16,
    )


async def to_request(services: Services, prompt_ids: list[int], params: SamplingParams) -> GenerationRequest:
    """One prompt with its parameters. What is out of bounds is found when it is submitted."""
    return GenerationRequest(
        prompt_ids=prompt_ids,
        sampling=await _to_sampling(services, len(prompt_ids), params),
        num_choices=params.n,
        stop=(params.stop,) if isinstance(params.stop, str) else tuple(params.stop or ()),
        include_stop_str_in_output=params.include_stop_str_in_output,
        skip_special_tokens=params.skip_special_tokens,
        prompt_logprobs=params.prompt_logprobs,
    )


async def _to_sampling(services: Services, prompt_len: int, params: SamplingParams) -> Sampling:
    allowed = params.allowed_token_ids
    room = max(1, services.max_model_len - prompt_len)
    values = {
        "seed": secrets.randbits(63) if params.seed is None else params.seed % _SEEDS,
        "max_tokens": room if params.max_tokens is None else params.max_tokens,
        "min_tokens": params.min_tokens,
        "temperature": params.temperature,
        "top_k": max(0, params.top_k),
        "top_p": params.top_p,
        "min_p": params.min_p,
        "presence_penalty": params.presence_penalty,
        "frequency_penalty": params.frequency_penalty,
        "repetition_penalty": params.repetition_penalty,
        "stop_token_ids": tuple(params.stop_token_ids or ()),
        "ignore_eos": params.ignore_eos,
        "logprobs": params.logprobs,
        "logit_bias": params.logit_bias or {},
        "allowed_token_ids": None if allowed is None else tuple(allowed),
        "bad_words": await encode_bad_words(services, list(params.bad_words or ())),
    }
    try:
        return msgspec.convert(values, Sampling)  # types too: what does not decode there would end the connection
    except msgspec.ValidationError as error:
        raise ValueError(f"sampling_params: {error}") from None
