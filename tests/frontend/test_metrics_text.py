"""When the text of /metrics is rendered: off the event loop, and not for each question."""

import asyncio
import threading

import pytest

from frontend import metrics
from frontend.metrics import MetricsText


class Rendered:
    """Counts, and remembers where it was rendered."""

    def __init__(self) -> None:
        self.count = 0
        self.threads: set[int] = set()

    def __call__(self) -> bytes:
        self.count += 1
        self.threads.add(threading.get_ident())
        return b"%d" % self.count


def test_many_questions_are_one_rendering_in_a_thread() -> None:
    async def scenario() -> None:
        rendered = Rendered()
        text = MetricsText(rendered)
        assert await asyncio.gather(*(text.get() for _ in range(5))) == [b"1"] * 5
        assert await text.get() == b"1"
        assert threading.get_ident() not in rendered.threads

    asyncio.run(scenario())


def test_an_old_text_is_rendered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        text = MetricsText(Rendered())
        assert await text.get() == b"1"
        monkeypatch.setattr(metrics, "MAX_AGE_S", 0.0)
        assert await text.get() == b"2"

    asyncio.run(scenario())


def test_a_question_that_is_given_up_does_not_end_the_others() -> None:
    async def scenario() -> None:
        text = MetricsText(Rendered())
        given_up, other = (asyncio.ensure_future(text.get()) for _ in range(2))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await other == b"1"

    asyncio.run(scenario())
