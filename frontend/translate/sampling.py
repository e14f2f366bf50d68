"""A body's sampling fields, over the model's defaults, as the engine's parameters."""

import secrets
from typing import TypeVar

from frontend.openai_bodies.fields import SamplingFields
from frontend.request import GenerationRequest
from frontend.sampling_defaults import SamplingDefaults
from frontend.translate.limits import stop_strings
from protocol.sampling import Sampling

_T = TypeVar("_T")
_SEEDS = 2**64


def said(value: _T | None, default: _T) -> _T:
    """What the body says, or else the default."""
    return default if value is None else value


def to_sampling(
    body: SamplingFields,
    defaults: SamplingDefaults,
    *,
    max_tokens: int,
    logprobs: int | None,
    bad_words: tuple[tuple[int, ...], ...],
) -> Sampling:
    """Every request has a seed: where the client gives none it is drawn here, so that a replay goes on the same way."""
    return Sampling(
        seed=secrets.randbits(63) if body.seed is None else body.seed % _SEEDS,
        max_tokens=max_tokens,
        min_tokens=body.min_tokens or 0,
        temperature=said(body.temperature, defaults.temperature),
        top_k=max(0, said(body.top_k, defaults.top_k)),
        top_p=said(body.top_p, defaults.top_p),
        min_p=said(body.min_p, defaults.min_p),
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=said(body.repetition_penalty, defaults.repetition_penalty),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        ignore_eos=body.ignore_eos or False,
        logprobs=logprobs,
        logit_bias=body.logit_bias or {},
        allowed_token_ids=None if body.allowed_token_ids is None else tuple(body.allowed_token_ids),
        bad_words=bad_words,
    )


def to_request(
    body: SamplingFields, prompt_ids: list[int], sampling: Sampling, *, prompt_logprobs: int | None, label: str
) -> GenerationRequest:
    """One prompt of the body as a request."""
    return GenerationRequest(
        prompt_ids=prompt_ids,
        sampling=sampling,
        num_choices=body.n or 1,
        stop=stop_strings(body),
        include_stop_str_in_output=body.include_stop_str_in_output or False,
        skip_special_tokens=said(body.skip_special_tokens, default=True),
        spaces_between_special_tokens=said(body.spaces_between_special_tokens, default=True),
        prompt_logprobs=prompt_logprobs,
        salt=body.cache_salt or "",
        priority=body.priority or 0,
        label=label,
    )
