"""Outputs with tool calls in the form of each parser's models, and what is in them."""

from typing import Any

# ruff: noqa: E501 - outputs are as models write them

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                    "options": {"type": "object"},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "now"}},
]
PARIS = ("get_weather", {"city": 'Paris "}]', "days": 3})
NOW: tuple[str, dict[str, Any]] = ("now", {})

# parser, output, text, calls
OUTPUTS: list[tuple[str, str, str, list[tuple[str, dict[str, Any]]]]] = [
    (
        "hermes",
        'Let me look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris \\"}]", "days": 3}}\n</tool_call>',
        "Let me look.",
        [PARIS],
    ),
    (
        "hermes",
        '<tool_call>{"arguments": {}, "name": "now"}</tool_call>\n<tool_call>\n{"name": "now", "arguments": "{}"}',
        "",
        [NOW, NOW],
    ),
    ("hermes", "a < b and <tool_cal> and <tool_call>no", "a < b and <tool_cal> and <tool_call>no", []),
    (
        "llama3_json",
        '{"name": "get_weather", "parameters": {"city": "Paris \\"}]", "days": 3}}; {"name": "now", "parameters": {}}',
        "",
        [PARIS, NOW],
    ),
    ("llama3_json", '<|python_tag|>{"type": "function", "name": "now", "parameters": {}}', "", [NOW]),
    ("llama3_json", '{"name": "Bob", "parameters": {}}', '{"name": "Bob", "parameters": {}}', []),
    (
        "mistral",
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris \\"}]", "days": 3}, "id": "abcdefghi"},'
        ' {"name": "now", "arguments": {}}]',
        "",
        [PARIS, NOW],
    ),
    (
        "mistral",
        'So[TOOL_CALLS]get_weather{"city": "Paris \\"}]", "days": 3}[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}',
        "So",
        [PARIS, NOW],
    ),
    ("pythonic", "[get_weather(city='Paris \"}]', days=3), now()]", "", [PARIS, NOW]),
    (
        "pythonic",
        '<|python_start|>[get_weather(city="""it\'s \\d\\x41""", options={\'a\': (1, -2.5,), \'b\': [None, True]})]<|python_end|>',
        "",
        [("get_weather", {"city": "it's \\dA", "options": {"a": [1, -2.5], "b": [None, True]}})],
    ),
    ("pythonic", "[Paris](http://x) and x[now()]", "[Paris](http://x) and x[now()]", []),
    (
        "qwen3_xml",
        '<tool_call>\n<function=get_weather>\n<parameter=city>\nParis "}]\n</parameter>\n<parameter=days>\n3\n</parameter>\n'
        "</function>\n</tool_call>\n<function=now>\n</function>",
        "",
        [PARIS, NOW],
    ),
    (
        "qwen3_xml",
        "<function=get_weather><parameter=city>\n\na\n\n</parameter><parameter=days>soon</parameter></function>",
        "",
        [("get_weather", {"city": "\na\n", "days": "soon"})],
    ),
    (
        "deepseek_v3",
        "Well.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris \\"}]", "days": 3}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n'
        "```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "Well.",
        [PARIS, NOW],
    ),
    ("deepseek_v3", "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "", [NOW]),
    (
        "openai",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
        '<|constrain|>json<|message|>{"city": "Paris \\"}]", "days": 3}<|call|>',
        "",
        [PARIS],
    ),
    ("openai", "<|channel|>final<|message|>It is 5 < 6.<|return|>", "It is 5 < 6.", []),
]
