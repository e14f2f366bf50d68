"""The engine core's loop: take mail, plan, launch, collect, send. Knows no torch; its runner is handed in.

With a runner of depth 1 a step is launched before the one before it is collected, so that the device never waits for
this thread; with depth 0 (CPU) a step is collected at once.
"""

from collections import deque

from engine.batch import Runner
from engine.collector import Collector, StepNews
from engine.config import EnginePlan
from engine.intake import Intake, Refusal
from engine.launched_step import LaunchedStep
from engine.mailbox import Mailbox, Peer
from engine.outbox import Outbox
from engine.pulse import Pulse
from engine.scheduler import Scheduler
from protocol.errors import PeerError
from protocol.launch import EngineConfig
from protocol.messages import Abort, Heartbeat, RequestFailed, Submit
from protocol.scoreboard import Row as ScoreboardRow

_COUNTERS = ("steps", "tokens", "preemptions", "prefix_queries", "prefix_hits", "peers_ended")


class EngineCore:
    """One model on one device, and everything that runs on it."""

    def __init__(
        self,
        config: EngineConfig,
        plan: EnginePlan,
        runner: Runner,
        mailbox: Mailbox,
        board: ScoreboardRow,
        *,
        eos_ids: tuple[int, ...],
    ) -> None:
        self.scheduler = Scheduler(
            plan,
            hash_key=config.hash_key,
            eos_ids=eos_ids,
            enable_chunked_prefill=config.enable_chunked_prefill,
        )
        self.mailbox = mailbox
        self._runner = runner
        self._collector = Collector(self.scheduler, eos_ids=eos_ids)
        self._intake = Intake(config, plan, self.scheduler.waiting)
        self._outbox = Outbox(mailbox)
        self._board = board
        self._pulse = Pulse(mailbox, board)
        self._in_flight: deque[LaunchedStep] = deque()
        self._num_steps = 0
        self._num_tokens = 0
        self._reported = dict.fromkeys(_COUNTERS, 0)

    @property
    def is_idle(self) -> bool:
        """Nothing runs, waits or is out: the next step can only come from mail."""
        return not self._in_flight and self.scheduler.slots.num_running == 0 and self.scheduler.waiting.num_rows == 0

    def prepare(self) -> bool:
        """Use idle time for the runner's own preparations; False: there are none left."""
        return self._runner.prepare()

    def step(self) -> None:
        """One turn of the loop."""
        self.mailbox.take(self._handle)
        planned = self.scheduler.plan()
        if planned is not None:
            self._runner.launch(planned.batch)
            self._in_flight.append(planned)
        if self._in_flight and (planned is None or len(self._in_flight) > self._runner.depth):
            news = self._collect(self._in_flight.popleft())
            self._forget_ended(news)
        self.beat_if_due()

    def beat_if_due(self) -> None:
        """The heartbeat to every peer and to the scoreboard, each 250 ms."""
        if not self._pulse.is_due:
            return
        self._write_board()
        self._pulse.beat(
            Heartbeat(
                seq=0,
                epoch=self.mailbox.epoch,
                step=self._num_steps,
                num_running=self.scheduler.slots.num_running,
                num_waiting=self.scheduler.waiting.num_rows,
                num_waiting_tokens=self.scheduler.waiting.num_tokens,
                num_blocks_used=self.scheduler.pool.num_held,
            )
        )

    def end_peer(self, peer: Peer) -> None:
        """The mailbox has ended this peer: its rows go back."""
        for row in list(peer.rows.values()):
            self.scheduler.end(row)
        peer.rows.clear()

    def _collect(self, step: LaunchedStep) -> StepNews:
        result = self._runner.collect()
        self._num_steps += 1
        news = self._collector.collect(step, result)
        self._num_tokens += len(news.tokens)
        self._outbox.send(self._num_steps, news)
        return news

    def _forget_ended(self, news: StepNews) -> None:
        for row in (*news.ended, *news.failed):
            peer = self.mailbox.peers.get(row.owner)
            if peer is not None:
                peer.rows.pop(row.number, None)

    # --- mail ---

    def _handle(self, peer: Peer, message: Submit | Abort) -> None:
        if isinstance(message, Submit):
            self._submit(peer, message)
        else:
            self._abort(peer, message.numbers)

    def _submit(self, peer: Peer, message: Submit) -> None:
        numbers = range(message.number, message.number + message.num_choices)
        if any(number in peer.rows for number in numbers):
            raise PeerError(f"row {message.number} is submitted twice")
        try:
            rows = self._intake.rows_of(peer.index, message)
        except Refusal as refusal:
            self.mailbox.send(peer, _failure(self.mailbox.epoch, message, refusal))
            return
        peer.rows.update({row.number: row for row in rows})
        self.scheduler.add(rows)

    def _abort(self, peer: Peer, numbers: list[int]) -> None:
        rows = [row for number in numbers if (row := peer.rows.pop(number, None)) is not None]
        for row in rows:
            self.scheduler.end(row)
        if rows:
            self._outbox.abort(peer, rows)

    def _write_board(self) -> None:
        scheduler, board = self.scheduler, self._board
        board.set("running", scheduler.slots.num_running)
        board.set("waiting", scheduler.waiting.num_rows)
        board.set("blocks_used", scheduler.pool.num_held)
        board.set("blocks_total", scheduler.pool.num_blocks)
        for name, value in zip(_COUNTERS, self._counts(), strict=True):
            board.add(name, value - self._reported[name])  # counters outlive this life of the row
            self._reported[name] = value

    def _counts(self) -> tuple[int, ...]:
        scheduler = self.scheduler
        return (
            self._num_steps,
            self._num_tokens,
            scheduler.num_preemptions,
            scheduler.cache.prefix_queries,
            scheduler.cache.prefix_hits,
            self.mailbox.num_ended,
        )


def _failure(epoch: int, message: Submit, refusal: Refusal) -> RequestFailed:
    return RequestFailed(
        seq=0,
        epoch=epoch,
        number=message.number,
        num_rows=message.num_choices,
        code=refusal.code,
        message=refusal.message,
        field=refusal.field,
        retry_after_s=refusal.retry_after_s,
    )
