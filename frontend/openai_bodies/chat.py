"""The body of POST /v1/chat/completions, and the messages that other routes share with it."""

from typing import Any, Literal

import msgspec

from frontend.openai_bodies.fields import SamplingFields
from frontend.openai_bodies.values import Scalar, TokenCount, ToolName

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class ContentPart(msgspec.Struct, kw_only=True):
    """One part of a message's content; parts of other types than text are refused when they are translated."""

    type: str
    text: str | None = None
    cache_control: Any = None  # accepted without effect
    image_url: Any = None
    video_url: Any = None
    audio_url: Any = None
    input_audio: Any = None
    file: Any = None
    refusal: Any = None


class CalledFunction(msgspec.Struct, kw_only=True):
    """Which function, and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, kw_only=True):
    """One call that the assistant made, as clients send it back."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None  # left over from a stream; without effect


class FunctionDefinition(msgspec.Struct, kw_only=True):
    """What the model is told of a function."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None  # JSON schema
    strict: bool | None = None  # accepted without effect: arguments are not held to the schema


class Tool(msgspec.Struct, kw_only=True):
    """What the model may call."""

    type: Literal["function"]
    function: FunctionDefinition


class Message(msgspec.Struct, kw_only=True):
    """One turn. The fields after `name` are what clients send back with an answer that they were given."""

    role: Role
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Any = None
    refusal: Any = None
    audio: Any = None
    annotations: Any = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class ChatBody(SamplingFields, kw_only=True):
    """A conversation to be continued by one message of the assistant."""

    messages: list[Message]
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: TokenCount | None = None
    echo: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Scalar] | None = None
    tools: list[Tool] | None = None
    tool_choice: Any = None  # checked by `frontend.translate.tools`
    parallel_tool_calls: bool | None = None
    # refused, as in `RefusedFields`
    functions: Any = None
    function_call: Any = None
    audio: Any = None
    modalities: Any = None
    web_search_options: Any = None
    chat_template: Any = None
    documents: Any = None
