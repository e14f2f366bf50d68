"""A body's messages as the plain dictionaries that a chat template reads."""

from typing import Any

from frontend.errors import invalid
from frontend.openai_bodies.chat import ContentPart, Message, ToolCall


def to_template_messages(messages: list[Message]) -> list[dict[str, Any]]:
    """Raises `ApiError` 400, naming the message, for content that is no text and for the older form of tool calls."""
    if not messages:
        raise invalid("messages", "messages must hold at least one message.")
    return [_to_dict(message, f"messages[{index}]") for index, message in enumerate(messages)]


def _to_dict(message: Message, path: str) -> dict[str, Any]:
    if message.function_call or message.role == "function":
        raise invalid(path, f"{path}: functions are not supported; use tool_calls and the role tool.")
    if message.content is None and not message.tool_calls:
        raise invalid(f"{path}.content", f"{path}.content is required.")
    if message.role == "tool" and message.tool_call_id is None:
        raise invalid(f"{path}.tool_call_id", f"{path}.tool_call_id is required: the id of the call that it answers.")
    content = None if message.content is None else _content(message.content, f"{path}.content")
    beside = {
        "name": message.name,
        "tool_calls": [_tool_call(call) for call in message.tool_calls or []] or None,
        "tool_call_id": message.tool_call_id,
        "reasoning_content": message.reasoning_content or message.reasoning,
    }
    said = {key: value for key, value in beside.items() if value is not None}
    return {"role": message.role, "content": content, **said}


def _tool_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments}
    return {"id": call.id, "type": call.type, "function": function}


def _content(content: str | list[ContentPart], path: str) -> str | list[dict[str, str]]:
    if isinstance(content, str):
        return content
    return [{"type": "text", "text": _text_of(part, f"{path}[{index}]")} for index, part in enumerate(content)]


def _text_of(part: ContentPart, path: str) -> str:
    if part.type != "text":
        raise invalid(path, f"{path}: content of type {part.type!r} is not supported; the model reads text only.")
    if part.text is None:
        raise invalid(f"{path}.text", f"{path}.text is required.")
    return part.text


def last_assistant_text(messages: list[Message]) -> str:
    """What `echo` puts before the answer: the message that the answer continues, if the assistant began it."""
    last = messages[-1]
    if last.role != "assistant" or last.content is None:
        return ""
    return last.content if isinstance(last.content, str) else "".join(part.text or "" for part in last.content)
