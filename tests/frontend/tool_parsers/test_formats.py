"""Every tool parser: what it finds, that the pieces do not matter, and that no text can harm it or be lost."""

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.message_parts import Arguments, CallEnded, CallStarted, Part, Reasoning, Text
from frontend.parser_names import TOOL_PARSERS
from frontend.tool_parsers import find_tool_parser
from tests.helpers.model_outputs import OUTPUTS, TOOLS

NAMES = st.sampled_from(list(TOOL_PARSERS))
MARKUP = [
    *("<tool_call>", "</tool_call>", "<function=", "<parameter=", "</parameter>", "</function>", ">", "<", "\n", " "),
    *('{"name": "', '", "arguments": {', '"parameters": ', '{"', '": ', '"', "}", "{", "[", "]", ",", ";", ":", "\\"),
    *("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "<|python_start|>", "now", "now(", "(", ")", "=", "'"),
    *("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "```json", "```"),
    *("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "to=functions.", "analysis", "[now(a=", "-", "é", "\x00"),
]


def parse(name: str, pieces: list[str]) -> list[Part]:
    """All parts, with neighbours of a kind put together."""
    parser = find_tool_parser(name, None)(TOOLS)
    parts = [part for piece in pieces for part in parser.push(piece)] + parser.flush()
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, Text | Reasoning | Arguments) and last is not None and type(last) is type(part):
            joined[-1] = type(part)(getattr(last, "text", "") + part.text)
        else:
            joined.append(part)
    return joined


def shown(parts: list[Part]) -> str:
    """Everything that a client sees."""
    return " ".join(
        part.name if isinstance(part, CallStarted) else part.text for part in parts if not isinstance(part, CallEnded)
    )


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[a:b] for a, b in zip(edges, edges[1:], strict=False)]


@pytest.mark.parametrize(("name", "output", "text", "calls"), OUTPUTS)
def test_calls_are_found(name: str, output: str, text: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    parts = parse(name, [output])
    assert "".join(part.text for part in parts if isinstance(part, Text)) == text
    arguments = [json.loads(part.text) for part in parts if isinstance(part, Arguments)]
    assert list(zip([part.name for part in parts if isinstance(part, CallStarted)], arguments, strict=True)) == calls
    assert sum(isinstance(part, CallEnded) for part in parts) == len(calls)


@pytest.mark.parametrize(("name", "output", "text", "calls"), OUTPUTS)
def test_every_split_in_two_and_single_characters_give_the_same(name: str, output: str, text: str, calls: Any) -> None:
    whole = parse(name, [output])
    assert parse(name, list(output)) == whole
    for place in range(len(output)):
        assert parse(name, [output[:place], output[place:]]) == whole


@pytest.mark.parametrize(("name", "output", "text", "calls"), OUTPUTS)
def test_a_truncated_output_gives_a_beginning(name: str, output: str, text: str, calls: Any) -> None:
    """Each call that has started is ended, in order, whatever is missing."""
    for end in range(len(output)):
        parts = parse(name, [output[:end]])
        kinds = [type(part) for part in parts if isinstance(part, CallStarted | CallEnded)]
        assert kinds == [CallStarted, CallEnded] * (len(kinds) // 2)


@settings(max_examples=400)
@given(name=NAMES, words=st.lists(st.sampled_from(MARKUP) | st.text(max_size=3), max_size=30), data=st.data())
def test_pieces_never_matter(name: str, words: list[str], data: st.DataObject) -> None:
    text = "".join(words)
    places = data.draw(st.lists(st.integers(0, len(text)), max_size=8))
    assert parse(name, cut(text, places)) == parse(name, [text])


@settings(max_examples=400)
@given(name=NAMES, markup=st.lists(st.sampled_from(MARKUP), max_size=25))
def test_no_word_is_lost(name: str, markup: list[str]) -> None:
    """Between any markup, each of these words is seen again: as text, as a name or within arguments."""
    words = [f"w{index}w" for index in range(len(markup))]
    text = "".join(word + mark for word, mark in zip(words, markup, strict=True))
    seen = shown(parse(name, [text]))
    missing = [word for word in words if word not in seen]
    if name in ("openai", "mistral", "deepseek_v3"):  # their headers hold words that are not for the client
        missing = [
            word for word in missing if not re.search(rf"(<\||｜|\[CALL_ID\])\S*{word}|{word}\S*(<\||<｜)", text)
        ]
    assert missing == []


@pytest.mark.parametrize("name", list(TOOL_PARSERS))
@pytest.mark.parametrize("mark", ["[", '{"', "<", "now(", "<tool_call>", "[TOOL_CALLS]", "\\", " "])
def test_time_is_linear_in_garbage(name: str, mark: str) -> None:
    """Ten times the text may take no more than thirty times the CPU time."""
    used = []
    for length in (2_000, 20_000):
        text = ("now(" + mark * length)[:length]
        began = time.process_time()
        parse(name, [text])
        used.append(time.process_time() - began)
    assert used[1] < 30 * used[0] + 0.2
