"""The sink of a streamed answer: each delta becomes the bytes of one event at once.

A choice's first delta goes the long way, with what opens the choice. After it, text alone goes by a template: two
constant pieces of bytes with the encoded text between them.
"""

from collections.abc import Callable

from frontend.endpoints.generations import AnswerPlan, Generations
from frontend.errors import from_exception
from frontend.request import UNTIL_THE_END, Delta, Lane
from frontend.sse import DONE, EventStream
from frontend.translate.answer import to_json


class EventWriter:
    """Between the generations of one answer and its stream."""

    generations: Generations

    def __init__(self, plan: AnswerPlan, stream: EventStream, *, interval: int) -> None:
        """`interval`: tokens of one event, beyond the first."""
        self._plan = plan
        self._format = plan.format
        self._stream = stream
        self._interval = interval
        self._opened = [False] * plan.num_choices
        self._lanes = [Lane() for _ in range(plan.num_choices)]

    def lane(self, choice: int) -> Lane:
        return self._lanes[choice]

    def on_delta(self, delta: Delta) -> None:
        usage = self.generations.usage if self._plan.usage_in_each_chunk else None
        # before the chunk, whose offsets begin where it ends
        opening = b"" if self._opened[delta.choice] else self._open(delta.choice)
        if event := opening + self._format.chunk(delta, usage):
            self._stream.write(event)

    def on_end(self) -> None:
        usage = self._format.usage_chunk(self.generations.usage) if self._plan.usage_chunk else b""
        self._stream.end(usage + DONE)

    def on_error(self, error: Exception) -> None:
        self._stream.fail(from_exception(error))

    def heed_flow(self) -> None:
        """While the client does not read, tokens are gathered; then they are one event."""
        for choice, lane in enumerate(self._lanes):
            lane.interval = self._interval_of(choice)
        if not self._stream.is_paused:
            self.generations.release()

    def _open(self, choice: int) -> bytes:
        self._opened[choice] = True
        lane = self._lanes[choice]
        lane.interval = self._interval_of(choice)
        around = self._format.around_text(choice)
        if around is not None and not self._plan.usage_in_each_chunk and not self._plan.prompt_only:
            lane.write = _by_template(self._stream.write, *around)
        return self._format.opening(choice)

    def _interval_of(self, choice: int) -> int:
        if self._stream.is_paused:
            return UNTIL_THE_END
        return self._interval if self._opened[choice] else 1


def _by_template(write: Callable[[bytes], None], before: bytes, after: bytes) -> Callable[[str], None]:
    def write_text(text: str) -> None:
        write(before + to_json(text) + after)

    return write_text
