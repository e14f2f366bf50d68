"""The bodies of POST /tokenize and /detokenize, and their answers."""

import msgspec

from frontend.openai_bodies.chat import Message
from frontend.openai_bodies.values import Scalar, TokenId


class TokenizeBody(msgspec.Struct, kw_only=True):
    """A text (`prompt`) or a conversation (`messages`)."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Scalar] | None = None
    return_token_strs: bool | None = None


class TokenizeAnswer(msgspec.Struct, kw_only=True):
    """The ids; `token_strs` where asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeBody(msgspec.Struct, kw_only=True):
    """Token ids to become text."""

    tokens: list[TokenId]
    model: str | None = None


class DetokenizeAnswer(msgspec.Struct, kw_only=True):
    """The text."""

    prompt: str
