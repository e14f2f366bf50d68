"""The answers of the generating routes as typed records: whole ones, and the parts that streams share with them."""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

FinishWord = Literal["stop", "length", "abort", "tool_calls"]


class PromptTokensDetails(msgspec.Struct, kw_only=True):
    """How much of the prompt was not computed again."""

    cached_tokens: int


class Usage(msgspec.Struct, kw_only=True):
    """What a request cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class TopLogprob(msgspec.Struct, kw_only=True):
    """One alternative at a position."""

    token: str
    logprob: float
    bytes: list[int]


class ChatTokenLogprob(msgspec.Struct, kw_only=True):
    """The token that was drawn, and the most likely ones."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, kw_only=True):
    """Log-probabilities of a message's tokens."""

    content: list[ChatTokenLogprob]
    refusal: None = None


class CompletionLogprobs(msgspec.Struct, kw_only=True):
    """Parallel lists over a completion's tokens; the first token of an echoed prompt has None."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class PromptLogprob(msgspec.Struct, kw_only=True):
    """One token that could have stood at a prompt position."""

    logprob: float
    rank: int | None
    decoded_token: str


PromptLogprobList = list[dict[int, PromptLogprob] | None]


class MadeFunctionCall(msgspec.Struct, kw_only=True):
    """Which function, and its arguments as JSON text, as the model wrote them."""

    name: str
    arguments: str


class MadeToolCall(msgspec.Struct, kw_only=True):
    """One call that the model made."""

    id: str
    type: Literal["function"] = "function"
    function: MadeFunctionCall


class AssistantMessage(msgspec.Struct, kw_only=True):
    """What the model said; `content` is null where it only called tools or thought."""

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    reasoning_content: str | None | UnsetType = UNSET
    reasoning: str | None | UnsetType = UNSET
    tool_calls: list[MadeToolCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, kw_only=True):
    """One answer of n."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishWord | None
    stop_reason: int | str | None
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(msgspec.Struct, kw_only=True):
    """The whole answer of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str
    service_tier: None = None
    prompt_logprobs: PromptLogprobList | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class CompletionChoice(msgspec.Struct, kw_only=True):
    """One completion of one prompt."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishWord | None
    stop_reason: int | str | None
    prompt_logprobs: PromptLogprobList | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    token_ids: list[int] | UnsetType = UNSET


class Completion(msgspec.Struct, kw_only=True):
    """The whole answer of POST /v1/completions."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    system_fingerprint: str


class ModelCard(msgspec.Struct, kw_only=True):
    """One model name that requests may ask for."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["headrace"] = "headrace"
    root: str
    parent: str | None = None
    max_model_len: int | None


class ModelList(msgspec.Struct, kw_only=True):
    """Every name."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ErrorFacts(msgspec.Struct, kw_only=True):
    """What went wrong, which field it was, and how to avoid it."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(msgspec.Struct, kw_only=True):
    """The body of every answer that is no 200."""

    error: ErrorFacts
