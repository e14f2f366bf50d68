"""A body's tools: which the model is shown, and what cannot be promised of its choice."""

from typing import Any

from frontend.errors import invalid
from frontend.openai_bodies.chat import ChatBody, Tool


def chosen_tools(body: ChatBody, *, enabled: bool) -> list[dict[str, Any]]:
    """The tools that the model may choose from; none with `tool_choice` "none": what it is not shown it cannot call.

    Raises `ApiError` 400 where a call would have to be forced, and where the server was not started for tools.
    """
    if body.tool_choice not in (None, "none", "auto"):
        raise invalid(
            "tool_choice",
            "tool_choice: only 'auto' and 'none' are supported; a call can be forced only by binding the output to a "
            "grammar, which is not supported.",
        )
    if not body.tools or body.tool_choice == "none":
        return []
    if not enabled:
        raise invalid(
            "tools",
            "tools: start the server with --enable-auto-tool-choice and --tool-call-parser, or choose 'none'.",
        )
    return [_to_template(tool) for tool in body.tools]


def _to_template(tool: Tool) -> dict[str, Any]:
    """With the keys in the order in which models have seen them."""
    function = tool.function
    shown: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        shown["description"] = function.description
    if function.parameters is not None:
        shown["parameters"] = function.parameters
    return {"type": tool.type, "function": shown}
