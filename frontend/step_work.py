"""One `StepOutput` on its way to its rows, a few of them at a time: the hot path, paid for each token."""

import asyncio
import logging
from itertools import islice, repeat

from frontend.errors import from_exception
from frontend.step_logprobs import by_token
from frontend.token_stream import TokenStream
from protocol.codec import int32s, int64s
from protocol.errors import PeerError
from protocol.messages import StepLogprobs, StepOutput

log = logging.getLogger("headrace.step_work")


class StepWork:
    """Arrays in, one call for each row."""

    def __init__(
        self,
        message: StepOutput,
        logprobs: StepLogprobs | None,
        *,
        now: float,
        hold: bool,
        held: set[TokenStream],
    ) -> None:
        """`hold`: rows tell nothing yet, and are put into `held`."""
        self.hold = hold
        self.stopped: list[int] = []  # rows that a stop string has ended here
        self._now = now
        self._held = held
        tokens = int32s(message.tokens)
        entries = repeat(None) if logprobs is None else by_token(logprobs, tokens)
        # `repeat` has no end
        self._rest = zip(int64s(message.rows), tokens, message.finishes, entries, strict=False)

    def push_some(self, rows: dict[int, TokenStream], count: int) -> bool:
        """The next `count` tokens to their rows; rows that end leave. False: that was all."""
        now, hold, num_left = self._now, self.hold, count
        for number, token, finish, logprob in islice(self._rest, count):
            num_left -= 1
            row = rows.get(number)
            if row is None:  # it has ended already
                continue
            try:
                if row.push(token, finish, now, logprob, hold=hold):
                    self.stopped.append(number)
            except PeerError:
                raise
            except Exception as error:  # noqa: BLE001 - a request can only hurt itself, not the other rows of the step
                log.exception("row %d failed in this API server", number)
                asyncio.get_running_loop().call_soon(row.break_off, from_exception(error))
            if finish:
                rows.pop(number, None)
            elif hold:
                self._held.add(row)
        return num_left == 0
