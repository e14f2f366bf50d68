"""The body of POST /v1/completions."""

from typing import Any

from frontend.openai_bodies.fields import SamplingFields
from frontend.openai_bodies.values import TokenCount, TokenId


class CompletionBody(SamplingFields, kw_only=True):
    """A text, a list of token ids, or a list of either, each continued by itself."""

    prompt: str | list[str | TokenId | list[TokenId]]
    logprobs: TokenCount | None = None
    echo: bool | None = None
    # refused, as in `RefusedFields`
    suffix: Any = None
    prompt_embeds: Any = None
