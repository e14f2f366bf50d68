"""What came out of a step: accept tokens, find the rows that ended, and sort the news by owner. No torch, no sockets.

A steady decode step costs a fixed number of array operations here; Python loops run over chunks, and over rows that
ended, failed or were preempted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.batch import Bools, Int32s, Int64s, LogprobRows, PromptLogprobRows, StepResult
from engine.launched_step import LaunchedStep
from engine.request import Row, RowState
from engine.scheduler import Scheduler
from protocol.messages import Finish

FinishCodes = npt.NDArray[np.uint8]


_NO_WIDTHS = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNews:
    """The accepted tokens of one step, all [r] parallel, and what else happened to rows in it."""

    owners: Int32s
    numbers: Int64s
    tokens: Int32s
    finishes: FinishCodes
    logprobs: LogprobRows | None  # `rows` index the r tokens
    logprob_widths: Int32s  # [R] alternatives that each of those asked for
    started: list[Row]  # got their first token
    failed: list[Row]  # logits were not finite
    prompt_logprobs: list[tuple[Row, PromptLogprobRows]]
    ended: list[Row]


class Collector:
    """Accepts the steps of one scheduler, in the order of their launch."""

    def __init__(self, scheduler: Scheduler, *, eos_ids: tuple[int, ...]) -> None:
        self._scheduler = scheduler
        self._slots = scheduler.slots
        self._eos_ids = np.array(eos_ids, np.int32)

    def collect(self, step: LaunchedStep, result: StepResult) -> StepNews:
        """Accept what the step gave to rows that are still the ones it was launched for."""
        slots = self._slots
        alive = slots.uid[step.slots] == step.uids
        accepted = alive & ~result.failed
        # where nobody left or failed, which is nearly always, the step's own arrays serve without a copy
        everybody = bool(accepted.all())
        pick = _all if everybody else lambda array: array[accepted]
        where, tokens = pick(step.slots), pick(result.tokens)
        self._count_in(step, step.slots if everybody else step.slots[alive])
        failed = [] if everybody else self._rows_at(step.slots[alive & result.failed])
        for row in failed:
            self._scheduler.fail(row)
        # before a row that ends at once leaves: its prompt blocks are published by their chunk
        prompt_logprobs = self._finish_chunks(step, result) if step.chunks else []
        known = self._accept(where, tokens, pick(step.positions))
        finishes = self._finishes(where, tokens, known)
        logprobs, widths = self._logprobs(result.logprobs, accepted, step.slots)
        started = list(self._started(step))
        ended = self._rows_at(where[finishes != Finish.RUNNING])
        for row in ended:
            self._scheduler.end(row)
        if self._scheduler.num_collecting:
            self._requeue_preempted(step)
        return StepNews(
            owners=pick(step.owners),
            numbers=pick(step.numbers),
            tokens=tokens,
            finishes=finishes,
            logprobs=logprobs,
            logprob_widths=widths,
            started=started,
            failed=failed,
            prompt_logprobs=prompt_logprobs,
            ended=ended,
        )

    def _count_in(self, step: LaunchedStep, sampled: Int32s) -> None:
        self._slots.num_in_flight[sampled] -= 1
        for chunk in step.chunks:
            if not chunk.samples and _is_placed(chunk.row):
                self._slots.num_in_flight[chunk.row.slot] -= 1

    def _accept(self, where: Int32s, tokens: Int32s, positions: Int32s) -> Int32s:
        """Answers how many tokens of each row are known now. The one drawn comes next after the one at `positions`."""
        slots = self._slots
        collected = positions + np.int32(1)
        known: Int32s = collected + np.int32(1)
        slots.tokens[where, collected] = tokens
        slots.num_known[where] = known
        slots.num_collected[where] = collected  # for rows without blocks, preempted ones, it means nothing
        return known

    def _finish_chunks(self, step: LaunchedStep, result: StepResult) -> list[tuple[Row, PromptLogprobRows]]:
        for chunk in step.chunks:
            if chunk.row.state is RowState.RUNNING:
                end = chunk.start + chunk.length
                self._slots.num_collected[chunk.row.slot] = end
                self._scheduler.cache.publish(chunk.row, start=chunk.start, end=end)
            if chunk.samples and _is_placed(chunk.row):
                self._scheduler.release_siblings(chunk.row)
        rows = ((step.chunks[found.chunk].row, found) for found in result.prompt_logprobs)
        return [(row, found) for row, found in rows if _is_placed(row)]

    def _finishes(self, where: Int32s, tokens: Int32s, known: Int32s) -> FinishCodes:
        slots = self._slots
        finishes = (known >= slots.max_total[where]) * np.uint8(Finish.LENGTH)
        stops = slots.stop_ids.take(where, axis=0) == tokens[:, None]
        if stops.any():  # over the whole first: in most steps nobody stops, and by rows it costs several times as much
            hit = stops.any(axis=1) & (known > slots.min_total[where])
            is_eos = np.isin(tokens, self._eos_ids)
            finishes[hit] = np.where(is_eos, np.uint8(Finish.EOS), np.uint8(Finish.STOP_TOKEN))[hit]
        return finishes

    def _logprobs(
        self, found: LogprobRows | None, accepted: Bools, step_slots: Int32s
    ) -> tuple[LogprobRows | None, Int32s]:
        if found is None:
            return None, _NO_WIDTHS
        keep = accepted[found.rows]
        new_index = np.cumsum(accepted, dtype=np.int32) - 1
        widths = self._slots.logprob_width[step_slots[found.rows[keep]]]
        kept = LogprobRows(
            rows=new_index[found.rows[keep]],
            logprobs=found.logprobs[keep],
            ranks=found.ranks[keep],
            top_ids=found.top_ids[keep],
            top_logprobs=found.top_logprobs[keep],
        )
        return kept, widths

    def _started(self, step: LaunchedStep) -> Iterator[Row]:
        for chunk in step.chunks:
            if chunk.samples and not chunk.row.started and _is_placed(chunk.row):
                chunk.row.started = True
                yield chunk.row

    def _rows_at(self, where: Int32s) -> list[Row]:
        rows = (self._slots.rows[slot] for slot in where.tolist())
        return [row for row in rows if row is not None]

    def _requeue_preempted(self, step: LaunchedStep) -> None:
        slots = self._slots
        back = step.slots[slots.num_blocks[step.slots] == 0]
        rows = self._rows_at(back)
        rows += [chunk.row for chunk in step.chunks if not chunk.samples]
        for row in rows:
            if row.state is RowState.COLLECTING and slots.num_in_flight[row.slot] == 0:
                self._scheduler.requeue(row)


def _all(array: Any) -> Any:
    return array


def _is_placed(row: Row) -> bool:
    return row.state in (RowState.RUNNING, RowState.COLLECTING)
