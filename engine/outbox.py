"""A step's news as messages: one `StepOutput` per API server and step, however many of its rows got a token."""

from collections.abc import Iterator

import numpy as np

from engine.batch import Int32s, LogprobRows, PromptLogprobRows
from engine.collector import StepNews
from engine.mailbox import Mailbox, Peer
from engine.request import Row
from protocol.messages import Finish, PromptLogprobs, RequestFailed, StepLogprobs, StepOutput
from protocol.sockets import MAX_MESSAGE_BYTES

_MAX_INT32 = 2**31 - 1
_MAX_PART_BYTES = MAX_MESSAGE_BYTES // 4  # of the alternatives in one `PromptLogprobs`
_BAD_LOGITS = "the model's logits for this request were not finite"


class Outbox:
    """Turns news into messages; costs a fixed number of array operations per API server."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._epoch = mailbox.epoch

    def send(self, step: int, news: StepNews) -> None:
        """Tell every owner its part of the step."""
        for row, found in news.prompt_logprobs:
            for part in self._prompt_logprobs(row, found):
                self._to_owner(row, part)
        for row in news.failed:
            self._to_owner(
                row, RequestFailed(seq=0, epoch=self._epoch, number=row.number, code="internal", message=_BAD_LOGITS)
            )
        owners = news.owners
        order: Int32s | slice = slice(None)
        if (owners[1:] < owners[:-1]).any():  # decode rows come sorted; joining rows may not
            order = np.argsort(owners, kind="stable").astype(np.int32)
            owners = owners[order]
        rows, tokens, finishes = news.numbers[order], news.tokens[order], news.finishes[order]
        bounds = [0, *(np.flatnonzero(owners[1:] != owners[:-1]) + 1).tolist(), len(owners)]
        for first, last in zip(bounds, bounds[1:], strict=False):
            peer = self._mailbox.peers.get(int(owners[first])) if last > first else None
            if peer is not None:
                logprobs = _step_logprobs(news, news.logprobs, peer.index) if news.logprobs is not None else None
                output = StepOutput(
                    seq=0,
                    epoch=self._epoch,
                    step=step,
                    rows=rows[first:last].tobytes(),
                    tokens=tokens[first:last].tobytes(),
                    finishes=finishes[first:last].tobytes(),
                    **(_started(news, peer) if news.started else {}),
                )
                self._mailbox.send(peer, output, logprobs)

    def abort(self, peer: Peer, rows: list[Row]) -> None:
        """The terminal message of a peer's rows that were aborted between steps."""
        output = StepOutput(
            seq=0,
            epoch=self._epoch,
            step=0,
            rows=np.array([row.number for row in rows], np.int64).tobytes(),
            tokens=np.zeros(len(rows), np.int32).tobytes(),
            finishes=bytes([Finish.ABORT]) * len(rows),
        )
        self._mailbox.send(peer, output)

    def _prompt_logprobs(self, row: Row, found: PromptLogprobRows) -> Iterator[PromptLogprobs]:
        """A chunk's, in as many messages as their size asks for."""
        width = found.top_ids.shape[1]
        most = max(1, _MAX_PART_BYTES // (8 * (width + 1)))
        for start in range(0, len(found.logprobs), most):
            part = slice(start, start + most)
            yield PromptLogprobs(
                seq=0,
                epoch=self._epoch,
                number=row.number,
                first=found.first + start,
                logprobs=found.logprobs[part].tobytes(),
                ranks=found.ranks[part].tobytes(),
                width=width,
                top_ids=found.top_ids[part].tobytes(),
                top_logprobs=found.top_logprobs[part].tobytes(),
            )

    def _to_owner(self, row: Row, message: PromptLogprobs | RequestFailed) -> None:
        peer = self._mailbox.peers.get(row.owner)
        if peer is not None:
            self._mailbox.send(peer, message)


def _started(news: StepNews, peer: Peer) -> dict[str, bytes]:
    """`StepOutput`'s arrays of the peer's rows that got their first token."""
    started = [row for row in news.started if row.owner == peer.index]
    queue_us = [min(int((row.queued_s or 0.0) * 1e6), _MAX_INT32) for row in started]
    return {
        "started_rows": np.array([row.number for row in started], np.int64).tobytes(),
        "started_cached": np.array([row.num_cached for row in started], np.int32).tobytes(),
        "started_queue_us": np.array(queue_us, np.int32).tobytes(),
    }


def _step_logprobs(news: StepNews, found: LogprobRows, owner: int) -> StepLogprobs | None:
    """The part of the step's log-probabilities that is for one owner; None: it has none."""
    owned = news.owners == owner
    mine = owned[found.rows]
    if not mine.any():
        return None
    index_within: Int32s = np.cumsum(owned, dtype=np.int32) - 1
    widths = np.minimum(news.logprob_widths[mine], found.top_ids.shape[1])
    wanted = np.arange(found.top_ids.shape[1]) < widths[:, None]
    return StepLogprobs(
        index=index_within[found.rows[mine]].tobytes(),
        logprobs=found.logprobs[mine].tobytes(),
        ranks=found.ranks[mine].tobytes(),
        widths=widths.astype(np.int32).tobytes(),
        top_ids=found.top_ids[mine][wanted].tobytes(),
        top_logprobs=found.top_logprobs[mine][wanted].tobytes(),
    )
