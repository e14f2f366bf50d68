"""Reasoning and answer apart, whatever the prompt has opened or closed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.message_parts import Reasoning, Text
from frontend.parser_names import REASONING_PARSERS
from frontend.reasoning_parsers import find_reasoning_parser

THOUGHT = "<think>\nHm, 1 < 2.\n</think>\n\nYes."


def split(name: str, prompt: str, pieces: list[str], *, continues: bool = False) -> tuple[str, str]:
    parser = find_reasoning_parser(name)(prompt, continues=continues)
    parts = [part for piece in pieces for part in parser.push(piece)] + parser.flush()
    reasoning = "".join(part.text for part in parts if isinstance(part, Reasoning))
    return reasoning, "".join(part.text for part in parts if isinstance(part, Text))


@pytest.mark.parametrize(
    ("name", "prompt", "output", "expected"),
    [
        ("qwen3", "<assistant>", THOUGHT, ("Hm, 1 < 2.", "Yes.")),
        ("qwen3", "<assistant>", "Yes, <think>.", ("", "Yes, <think>.")),
        ("qwen3", "<assistant><think>\n", "Hm.\n</think>\n\nYes.", ("Hm.", "Yes.")),
        ("qwen3", "<assistant><think>\n\n</think>\n\n", "Yes.", ("", "Yes.")),
        ("deepseek_r1", "<assistant>", "Hm.</think>Yes.</think>", ("Hm.", "Yes.</think>")),
        ("deepseek_r1", "<assistant>", THOUGHT, ("Hm, 1 < 2.", "Yes.")),
        ("deepseek_r1", "<assistant>", "Hm, no end </thi", ("Hm, no end </thi", "")),
        ("deepseek_r1", "<assistant></think>", "Yes.", ("", "Yes.")),
    ],
)
def test_reasoning_and_answer(name: str, prompt: str, output: str, expected: tuple[str, str]) -> None:
    assert split(name, prompt, [output]) == expected
    assert split(name, prompt, list(output)) == expected


def test_a_continued_answer_thinks_only_where_it_had_not_ended() -> None:
    assert split("deepseek_r1", "<assistant>The answer", [" is 4."], continues=True) == ("", " is 4.")
    assert split("deepseek_r1", "<assistant><think>Well", ["?</think>4"], continues=True) == ("?", "4")


@given(
    name=st.sampled_from(sorted(REASONING_PARSERS)),
    words=st.lists(st.sampled_from(["<think>", "</think>", "<", "a", "\n", " ", "</thi"]), max_size=12),
    place=st.integers(0, 60),
)
def test_pieces_never_matter(name: str, words: list[str], place: int) -> None:
    text = "".join(words)
    assert split(name, "", [text[:place], text[place:]]) == split(name, "", [text])
