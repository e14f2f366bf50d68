"""The text side of one model: tokenizer, chat template and sampling defaults, loaded together from its folder."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """What a request gets that does not say: the model's generation_config.json, then OpenAI's."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int | None = None  # None: up to the context's end


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelText:
    """Everything that turns text into ids and back."""

    tokenizer: Any  # frontend.tokenizer.Tokenizer
    chat_template: Any  # frontend.chat_template.ChatTemplate | None
    defaults: SamplingDefaults
