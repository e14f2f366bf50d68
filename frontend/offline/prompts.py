"""Prompts of a Python program as token ids: texts, ids as they are, conversations by the chat template."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from frontend.endpoints.prompts import encode_prompt
from frontend.services import Services

Conversation = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class PromptIds:
    """`text` is None where ids were given."""

    text: str | None
    ids: list[int]


async def encode_prompts(services: Services, prompts: Sequence[str | Sequence[int]]) -> list[PromptIds]:
    """Raises `ApiError` 400 for a text that is clearly too long."""
    return [
        await _encode(services, prompt) if isinstance(prompt, str) else PromptIds(None, list(prompt))
        for prompt in prompts
    ]


async def render_conversations(
    services: Services, conversations: Sequence[Conversation], options: dict[str, Any]
) -> list[PromptIds]:
    """Raises `ApiError` 400 for what the template refuses. A template writes the special tokens itself."""
    texts = [await services.render_chat(conversation, **options) for conversation in conversations]
    return [await _encode(services, text, add_special_tokens=False) for text in texts]


async def _encode(services: Services, text: str, *, add_special_tokens: bool = True) -> PromptIds:
    ids = await encode_prompt(services, text, add_special_tokens=add_special_tokens, truncates=False, param="prompt")
    return PromptIds(text, ids)
