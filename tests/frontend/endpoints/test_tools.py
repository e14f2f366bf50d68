"""Tools and reasoning through the official client, against an engine whose model says what the test has written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from frontend.settings import Settings
from protocol.codec import int32s
from tests.helpers.http_serving import MODEL, USER, HttpServer, http_serving
from tests.helpers.model_outputs import TOOLS

ANSWER = (
    "<think>Paris.</think>Let me look.\n"
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
)
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}{{ c.id }}{% endfor %}"
    "{{ m.tool_call_id }}</>{% endfor %}"
)


@pytest.fixture(scope="module")
def tool_server(chat_model: str) -> Iterator[HttpServer]:
    settings = Settings(
        model=MODEL,
        chat_template=TEMPLATE,
        enable_auto_tool_choice=True,
        tool_call_parser="hermes",
        reasoning_parser="qwen3",
    )
    with http_serving(chat_model, settings=settings) as server:
        server.engine.answer = server.services.text.tokenizer.encode(ANSWER, add_special_tokens=False)
        yield server


def create(server: HttpServer, **more: Any) -> Any:
    asked = {"model": MODEL, "messages": [USER], "tools": TOOLS, "max_tokens": 500} | more
    return server.openai.chat.completions.create(**asked)


def test_a_whole_answer_has_calls_text_and_reasoning(tool_server: HttpServer) -> None:
    choice = create(tool_server).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert (choice.message.content, choice.message.reasoning_content) == ("Let me look.", "Paris.")
    calls = [(call.type, call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls]
    assert calls == [("function", "get_weather", {"city": "Paris"}), ("function", "now", {})]
    assert len({call.id for call in choice.message.tool_calls}) == 2


def test_a_stream_adds_up_to_the_whole_answer(tool_server: HttpServer) -> None:
    content, reasoning, reasons = "", "", []
    calls: dict[int, dict[str, str]] = {}
    for chunk in create(tool_server, stream=True):
        choice = chunk.choices[0]
        content += choice.delta.content or ""
        reasoning += getattr(choice.delta, "reasoning_content", None) or ""
        reasons.append(choice.finish_reason)
        for call in choice.delta.tool_calls or []:
            seen = calls.setdefault(call.index, {"id": call.id, "name": call.function.name, "arguments": ""})
            seen["arguments"] += call.function.arguments
    message = create(tool_server).choices[0].message
    assert (content, reasoning) == (message.content, message.reasoning_content)
    assert [(call["name"], call["arguments"]) for call in calls.values()] == [
        (call.function.name, call.function.arguments) for call in message.tool_calls
    ]
    assert all(call["id"].startswith("call_") for call in calls.values())
    assert [reason for reason in reasons if reason] == ["tool_calls"]


def test_a_message_of_calls_alone_has_null_content(tool_server: HttpServer) -> None:
    engine, tokenizer = tool_server.engine, tool_server.services.text.tokenizer
    before = engine.answer
    engine.answer = tokenizer.encode('<tool_call>{"name": "now"}</tool_call>', add_special_tokens=False)
    try:
        body = tool_server.chat(tools=TOOLS, max_tokens=100)
    finally:
        engine.answer = before
    message = body["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0]["function"] == {"name": "now", "arguments": "{}"}
    assert "reasoning_content" not in message


def test_one_call_where_parallel_calls_are_not_wanted(tool_server: HttpServer) -> None:
    calls = create(tool_server, parallel_tool_calls=False).choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather"]


def test_a_conversation_with_calls_reaches_the_template(tool_server: HttpServer) -> None:
    call = create(tool_server).choices[0].message
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "sunny"}
    create(tool_server, messages=[USER, call, result])
    ids = list(int32s(tool_server.engine.submits[-1].prompt))
    prompt = tool_server.services.text.tokenizer.decode(ids, skip_special_tokens=False)
    assert prompt.startswith('[{"type": "function", "function": {"name": "get_weather", "parameters"')
    assert f'Let me look.get_weather{{"city": "Paris"}}{call.tool_calls[0].id}' in prompt
    assert f"<tool>sunny{call.tool_calls[0].id}</>" in prompt


def test_without_tools_the_text_is_the_answer(tool_server: HttpServer) -> None:
    asked: list[dict[str, Any]] = [{"tools": []}, {"tool_choice": "none"}]
    for more in asked:
        message = create(tool_server, **more).choices[0].message
        assert message.tool_calls is None
        assert message.content == ANSWER.partition("</think>")[2]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "now"}}])
def test_a_forced_call_is_refused(tool_server: HttpServer, choice: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="only 'auto' and 'none'"):
        create(tool_server, tool_choice=choice)


def test_tools_need_a_server_that_was_started_for_them(server: HttpServer) -> None:
    with pytest.raises(openai.BadRequestError, match="--enable-auto-tool-choice"):
        create(server)


def test_a_plugin_adds_a_parser(chat_model: str, tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from frontend.tool_parsers.hermes import HermesParser\n\n"
        "class Mine(HermesParser):\n    begins = ('CALL',)\n    closes = ()\n\n"
        "TOOL_PARSERS = {'mine': Mine}\n"
    )
    settings = Settings(
        model=MODEL, enable_auto_tool_choice=True, tool_call_parser="mine", tool_parser_plugin=str(plugin)
    )
    with http_serving(chat_model, settings=settings) as server:
        server.engine.answer = server.services.text.tokenizer.encode('CALL{"name": "now"}', add_special_tokens=False)
        assert create(server).choices[0].message.tool_calls[0].function.name == "now"
