"""The fields that every kind of generation shares: what is used, what is accepted without effect, what is refused."""

from typing import Annotated, Any

import msgspec

from frontend.openai_bodies.values import (
    Bias,
    Label,
    MinusOneOrMore,
    OneOrMore,
    Penalty,
    PositiveShare,
    Priority,
    Repetition,
    Salt,
    Seed,
    Share,
    Temperature,
    TokenCount,
    TokenId,
    Word,
)


class StreamOptions(msgspec.Struct, kw_only=True):
    """What a stream carries beside the text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None  # OpenAI's padding against traffic analysis: accepted without effect


class AcceptedWithoutEffect(msgspec.Struct, kw_only=True):
    """The one list of OpenAI's fields that change nothing here."""

    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    verbosity: Any = None
    prediction: Any = None
    reasoning_effort: Any = None


class RefusedFields(AcceptedWithoutEffect, kw_only=True):
    """Known fields that are not served: `frontend.translate.refusals` says which of their values mean nothing."""

    best_of: Any = None
    response_format: Any = None
    structured_outputs: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    use_beam_search: Any = None
    length_penalty: Any = None
    logits_processors: Any = None


class SamplingFields(RefusedFields, kw_only=True):
    """Everything that says how to go on from a prompt. None is "not said": the defaults are the model's."""

    model: str | None = None
    temperature: Temperature | None = None
    top_p: PositiveShare | None = None
    top_k: Annotated[MinusOneOrMore, msgspec.Meta(description="0 and -1 keep all tokens")] | None = None
    min_p: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Repetition | None = None
    logit_bias: dict[TokenId, Bias] | None = None
    bad_words: list[Word] | None = None
    allowed_token_ids: list[TokenId] | None = None
    seed: Seed | None = None
    n: OneOrMore | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[TokenId] | None = None
    include_stop_str_in_output: bool | None = None
    min_tokens: TokenCount | None = None
    max_tokens: TokenCount | None = None
    ignore_eos: bool | None = None
    prompt_logprobs: TokenCount | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    truncate_prompt_tokens: (
        Annotated[MinusOneOrMore, msgspec.Meta(description="keep the last so many; -1: as many as the model takes")]
        | None
    ) = None
    add_special_tokens: bool | None = None
    priority: Priority | None = None
    cache_salt: Salt | None = None
    return_token_ids: bool | None = None
    request_id: Label | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
