import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.stop_strings import StopChecker


def run(stops: tuple[str, ...], parts: list[str], *, include: bool = False) -> tuple[list[str], str | None]:
    checker = StopChecker(stops, include_stop_str_in_output=include)
    shown = []
    for part in parts:
        text, stop = checker.push(part)
        shown.append(text)
        if stop is not None:
            return shown, stop
    return [*shown, checker.flush()], None


def search(stops: tuple[str, ...], text: str, *, include: bool) -> tuple[str, str | None]:
    """The rule by brute force: the match that ends first, and of those the longest."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return text[: end if include else end - len(stop)], stop
    return text, None


LETTERS = st.text("abA\u00e9", max_size=30)
STOPS = st.lists(st.text("abA\u00e9", min_size=1, max_size=6), min_size=1, max_size=5).map(tuple)


@settings(max_examples=1000, deadline=None)
@given(stops=STOPS, text=LETTERS, cuts=st.lists(st.integers(0, 30), max_size=10), include=st.booleans())
def test_every_split_finds_what_a_search_of_the_whole_finds(
    stops: tuple[str, ...], text: str, cuts: list[int], include: bool
) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[start:end] for start, end in zip(edges, edges[1:], strict=False)]
    shown, stop = run(stops, parts, include=include)
    assert ("".join(shown), stop) == search(stops, text, include=include)


@settings(deadline=None)
@given(stops=STOPS, text=LETTERS)
def test_only_what_may_still_become_a_stop_string_is_held_back(stops: tuple[str, ...], text: str) -> None:
    checker = StopChecker(stops, include_stop_str_in_output=False)
    shown = ""
    for end, char in enumerate(text, start=1):
        new, stop = checker.push(char)
        if stop is not None:
            return
        shown += new
        held = text[len(shown) : end]
        assert not held or any(stop.startswith(held) for stop in stops)


@pytest.mark.parametrize(
    ("stops", "parts", "shown", "stop"),
    [
        (("\n\n",), ["one\n", "two\n", "\nthree"], ["one", "\ntwo", ""], "\n\n"),
        (("STOP",), ["ST", "ART"], ["", "START", ""], None),
        (("abcd", "bc"), ["abcd"], ["a"], "bc"),
        (("c", "abc"), ["abc"], [""], "abc"),
        (("x",), ["no", "thing"], ["no", "thing", ""], None),
        (("end",), ["the en"], ["the ", "en"], None),
    ],
)
def test_by_example(stops: tuple[str, ...], parts: list[str], shown: list[str], stop: str | None) -> None:
    assert run(stops, parts) == (shown, stop)


def test_the_stop_string_is_shown_where_asked_for() -> None:
    assert run(("END",), ["the E", "ND, not this"], include=True) == (["the ", "END"], "END")


def test_time_is_linear_where_everything_almost_matches() -> None:
    stops = tuple("a" * 63 + char for char in "bcdefghijklmnopq")

    def seconds(count: int) -> float:
        checker = StopChecker(stops, include_stop_str_in_output=False)
        began = time.thread_time()
        for _ in range(count):
            checker.push("a")
        return time.thread_time() - began

    assert min(seconds(50_000) for _ in range(3)) < 12 * min(seconds(10_000) for _ in range(3))
