from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from frontend.chat_template import ChatTemplate, ChatTemplateError
from protocol.launch import ModelFiles

MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " What is 1 < 2?\n"},
    {"role": "assistant", "content": "True.  "},
]
PLAIN = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
TRIMMING = "{% for message in messages %}{{ message.role }}: {{ message.content | trim }}<end>\n{% endfor %}"
TOOLS = """{%- if tools %}
    {{- '<tools>\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
        {{- tool | tojson(indent=2) }}
    {%- endfor %}
{%- endif %}
{%- set ns = namespace(turns=0) %}
{%- for message in messages %}
    {%- if message.role == 'system' %}{% continue %}{% endif %}
    {%- set ns.turns = ns.turns + 1 %}
    {%- for call in message.tool_calls or [] %}
        {{- call.function.name ~ call.function.arguments | tojson }}
    {%- endfor %}
    {%- generation %}
    {{ message.content }}
    {%- endgeneration %}
{%- endfor %}
{{ ns.turns }}{{ bos_token }}{{ dict(a=1).a }}
{%- if enable_thinking is defined and not enable_thinking %}<quick>{% endif %}
{%- if add_generation_prompt %}
assistant:
{%- endif %}
"""
PARTS = """{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}
{% for part in message['content'] %}[{{ part.type }}={{ part.text }}]{% endfor %}{% endif %}{% endfor %}"""


def theirs(source: str, messages: list[dict[str, Any]], **options: Any) -> str:
    found: Any = render_jinja_template([messages], chat_template=source, **options)
    return str(found[0][0])


@pytest.fixture(scope="module")
def demo_source(demo_files: ModelFiles) -> str:
    return (Path(demo_files.config_dir) / "chat_template.jinja").read_text()


ROLES = st.sampled_from(["system", "user", "assistant"])
CHATS = st.lists(st.fixed_dictionaries({"role": ROLES, "content": st.text()}), min_size=1, max_size=5)


@given(messages=CHATS, prompt=st.booleans())
def test_the_demos_template_gives_what_transformers_gives(
    demo_source: str, messages: list[dict[str, Any]], prompt: bool
) -> None:
    ours = ChatTemplate(demo_source).render(messages, add_generation_prompt=prompt)
    assert ours == theirs(demo_source, messages, add_generation_prompt=prompt)


@pytest.mark.parametrize("source", [PLAIN, TRIMMING, TOOLS])
@pytest.mark.parametrize("prompt", [True, False])
def test_other_templates_give_what_transformers_gives(source: str, prompt: bool) -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "é < &", "parameters": {}}}]
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": [1, "ü"]}}}
    messages = [*MESSAGES, {"role": "assistant", "content": "", "tool_calls": [call]}]
    options: dict[str, Any] = {"tools": tools, "add_generation_prompt": prompt}
    ours = ChatTemplate(source, special_tokens={"bos_token": "<s>"})
    found = ours.render(messages, chat_template_kwargs={"enable_thinking": False}, **options)
    assert found == theirs(source, messages, bos_token="<s>", enable_thinking=False, **options)


@pytest.mark.parametrize("source", [PLAIN, TRIMMING])
def test_the_last_message_is_continued_where_its_text_ends(source: str) -> None:
    options: dict[str, Any] = {"add_generation_prompt": False, "continue_final_message": True}
    found = ChatTemplate(source).render(MESSAGES, **options)
    assert found == theirs(source, MESSAGES, **options)
    assert found.rstrip().endswith("assistant: True.")


def test_a_template_that_hides_the_last_message_cannot_continue_it() -> None:
    with pytest.raises(ChatTemplateError, match="does not show the last message's text"):
        ChatTemplate("{{ messages[0].role }}").render(
            MESSAGES, add_generation_prompt=False, continue_final_message=True
        )


def test_arguments_of_tool_calls_reach_the_template_as_objects() -> None:
    call = {"function": {"name": "f", "arguments": '{"x": 1}'}}
    source = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.arguments.x }}{% endfor %}{% endfor %}"
    )
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert ChatTemplate(source).render([message]) == "1"
    call["function"]["arguments"] = "{"
    with pytest.raises(ValueError, match=r"messages\[0\]\.tool_calls: the arguments of a call are not valid JSON"):
        ChatTemplate(source).render([message])


def test_a_template_for_tools_is_used_only_with_tools() -> None:
    template = ChatTemplate("plain", tool_source="tools")
    assert template.render(MESSAGES) == "plain"
    assert template.render(MESSAGES, tools=[{}]) == "tools"


@pytest.mark.parametrize(("source", "content_format"), [(PLAIN, "string"), (PARTS, "openai")])
def test_content_comes_in_the_form_that_the_template_expects(source: str, content_format: str) -> None:
    assert ChatTemplate(source).content_format == content_format


def test_parts_are_joined_or_kept() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    message = {"role": "user", "content": parts}
    assert ChatTemplate(PLAIN).render([message]) == "user: a\nb\n"
    assert ChatTemplate(PARTS).render([message]) == "[text=a][text=b]"
    assert ChatTemplate(PARTS).render([{"role": "user", "content": "a"}]) == "[text=a]"
    assert ChatTemplate(PARTS, content_format="string").render([message]) == "a\nb"
    assert message["content"] is parts


def test_a_part_that_is_no_text_is_refused_by_name() -> None:
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    with pytest.raises(ValueError, match=r"messages\[0\]\.content: only parts of type 'text'.*'image_url'"):
        ChatTemplate(PLAIN).render([message])


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"messages": "x"}, "must not set 'messages'"),
        ({"bos_token": "x"}, "must not set 'bos_token'"),
        ({"x": {"a": 1}}, "chat_template_kwargs.x must be a string"),
        ({"x": [1]}, "chat_template_kwargs.x must be a string"),
    ],
)
def test_template_arguments_are_scalars_with_names_of_their_own(kwargs: dict[str, Any], reason: str) -> None:
    with pytest.raises(ChatTemplateError, match=reason):
        ChatTemplate(PLAIN).render(MESSAGES, chat_template_kwargs=kwargs)


def test_contradicting_options_and_an_empty_chat_are_refused() -> None:
    with pytest.raises(ChatTemplateError, match="exclude each other"):
        ChatTemplate(PLAIN).render(MESSAGES, continue_final_message=True)
    with pytest.raises(ChatTemplateError, match="at least one message"):
        ChatTemplate(PLAIN).render([])


def test_the_templates_own_refusal_is_the_reason() -> None:
    source = "{% if messages | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}"
    with pytest.raises(ChatTemplateError, match="refuses these messages: one at a time"):
        ChatTemplate(source).render(MESSAGES)


@pytest.mark.parametrize(
    "source",
    [
        "{% for message in %}",
        "{{ messages[0].nothing.more }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__.os }}",
        "{% set n = namespace(__class__=1) %}{{ n }}",
        "{% include 'secret' %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    ],
)
def test_a_bad_template_is_refused_at_the_start(source: str) -> None:
    with pytest.raises(ChatTemplateError) as caught:
        ChatTemplate(source)
    assert "\n" not in str(caught.value)


ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{{ j }} {% endfor %}{% endfor %}"


def test_an_endless_template_stops_at_the_cap_or_the_deadline() -> None:
    with pytest.raises(ChatTemplateError, match="more than 1000 characters"):
        ChatTemplate(ENDLESS, max_chars=1000)
    with pytest.raises(ChatTemplateError, match=r"took more than 0\.05 s"):
        ChatTemplate(ENDLESS, max_render_s=0.05)
