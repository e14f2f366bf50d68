"""OpenAI's chat messages in the form that chat templates expect. Pure functions over plain dictionaries."""

import json
from typing import Any

from frontend.content_format import ContentFormat

Message = dict[str, Any]


def prepare_messages(messages: list[Message], content_format: ContentFormat) -> list[Message]:
    """Copies with content in the wanted form, arguments of tool calls as objects; a ValueError names the message."""
    prepared = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        prepared.append(message | {"content": _content(message.get("content"), content_format, place)})
        if message.get("tool_calls"):
            prepared[-1]["tool_calls"] = [_tool_call(call, place) for call in message["tool_calls"]]
    return prepared


def append_to_last(messages: list[Message], marker: str) -> None:
    """Put `marker` behind the text of the last message, in place."""
    last = messages[-1]
    if isinstance(last["content"], str):
        last["content"] += marker
        return
    if not last["content"]:
        raise ValueError(f"messages[{len(messages) - 1}] has no text that continue_final_message could continue")
    last["content"][-1] = {"type": "text", "text": last["content"][-1]["text"] + marker}


def _content(content: Any, content_format: ContentFormat, place: str) -> str | list[dict[str, str]]:
    if content is None:
        return "" if content_format == "string" else []
    texts = [content] if isinstance(content, str) else [_text(part, place) for part in content]
    if content_format == "string":
        return "\n".join(texts)
    return [{"type": "text", "text": text} for text in texts]


def _text(part: dict[str, Any], place: str) -> str:
    if part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise ValueError(f"{place}.content: only parts of type 'text' can be served, not {part.get('type')!r:.40}")
    return str(part["text"])


def _tool_call(call: Any, place: str) -> Any:
    """OpenAI sends arguments as JSON text; templates write them out as an object."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except (ValueError, RecursionError):
        raise ValueError(f"{place}.tool_calls: the arguments of a call are not valid JSON") from None
    return call | {"function": function | {"arguments": arguments}}
