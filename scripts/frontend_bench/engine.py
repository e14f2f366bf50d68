"""An engine core without a model: `python -m scripts.frontend_bench.engine PAGE`, started by a supervisor.

The mailbox, the messages and the sockets are the real ones. A step is a few array operations for each API server, and
is sent as soon as clients have what was sent before, or at a fixed rate: the page says which.
"""

import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import zmq

from engine.mailbox import Mailbox, Peer
from engine.models.shape import read_shape
from engine.pulse import Pulse
from frontend.tokenizer import Tokenizer
from protocol.launch import EngineConfig
from protocol.logs import configure_logging
from protocol.messages import (
    PROTOCOL_VERSION,
    Abort,
    EngineReady,
    Finish,
    Heartbeat,
    ModelFacts,
    StepOutput,
    Submit,
    Welcome,
)
from protocol.process import Ready, Stop, die_with, receive_to_child, send_control
from protocol.scoreboard import Scoreboard, State
from protocol.sockets import bind_router
from scripts.frontend_bench.page import Page
from scripts.frontend_bench.words import choose_words, write_words

_IDLE_POLL_MS = 1
_BLOCKED_S = 0.0001
_STUCK_S = 2.0  # tokens of aborted rows are never received: after so long the count starts anew


@dataclass(slots=True)
class Rows:
    """One API server's rows as arrays."""

    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    left: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    joining: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.numbers) + len(self.joining)

    def drop(self, numbers: list[int]) -> None:
        """These were aborted."""
        gone = set(numbers)
        self.joining = [row for row in self.joining if row[0] not in gone]
        kept = ~np.isin(self.numbers, numbers)
        self.numbers, self.left = self.numbers[kept], self.left[kept]


class Window:
    """How far the engine may be ahead of the clients, who say on the page what they have received."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._num_open = 0  # tokens sent, and not yet received
        self._received = 0
        self._moved_at = 0.0

    def has_room(self, num_rows: int) -> bool:
        """May another step be sent?"""
        now, received = time.monotonic(), self._page.total("tokens")
        if received != self._received or not self._num_open:
            self._num_open = max(0, self._num_open - max(0, received - self._received))
            self._received, self._moved_at = received, now
        elif now - self._moved_at > _STUCK_S:
            self._num_open, self._moved_at = 0, now
        return self._num_open <= (self._page.window - 1) * num_rows

    def sent(self, num_tokens: int) -> None:
        """One step more."""
        self._num_open += num_tokens

    def forget(self) -> None:
        """Nothing runs: what is open will never be received."""
        self._num_open = 0


class BenchEngine:
    """Every row gets a token in every step."""

    def __init__(self, config: EngineConfig, page: Page) -> None:
        shape = read_shape(config.model.config_dir)
        word_ids, words = choose_words(Tokenizer(config.model.config_dir))
        write_words(page.path.with_suffix(".words"), words)
        self._word_ids = np.array(word_ids, np.int32)
        self._page = page
        self._epoch = config.epoch
        facts = ModelFacts(
            architecture=shape.architecture,
            vocab_size=shape.vocab_size,
            eos_token_ids=shape.eos_token_ids,
            max_position=shape.max_position_embeddings,
        )
        welcome = Welcome(
            seq=0,
            epoch=config.epoch,
            version=PROTOCOL_VERSION,
            model=facts,
            tokenizer_dir=config.model.config_dir,
        )
        router = bind_router(zmq.Context(), config.address)
        self.mailbox = Mailbox(router, epoch=config.epoch, welcome=welcome, on_peer_end=self._end_peer)
        self._rows: dict[int, Rows] = {}
        self._pulse = Pulse(self.mailbox, Scoreboard(config.scoreboard_fd).engine_row(config.rank))
        self._step = 0
        self._next_at = 0.0
        self._window = Window(page)
        self.mailbox.announce_ready(_ready(config, shape.max_position_embeddings))

    def turn(self) -> None:
        """Mail, a step if it is time for one, the heartbeat."""
        self.mailbox.take(self._handle)
        if self._pulse.is_due:
            self._pulse.beat(self._heartbeat())
        num_rows = sum(map(len, self._rows.values()))
        if not num_rows:
            self._window.forget()
            self.mailbox.router.poll(_IDLE_POLL_MS)
        elif self._page.step_us:
            self._step_on_time(self._page.step_us / 1e6)
        elif self._window.has_room(num_rows):
            self._send_step(spread=True)
        else:
            time.sleep(_BLOCKED_S)

    def _step_on_time(self, interval_s: float) -> None:
        now = time.monotonic()
        if now < self._next_at:
            time.sleep(min(0.001, self._next_at - now))
            return
        self._next_at = max(self._next_at, now - interval_s) + interval_s
        self._send_step(spread=False)

    def _send_step(self, *, spread: bool) -> None:
        """Not spread: each row has the same word, which tells a client the step."""
        self._step += 1
        self._page.note_step(self._step, time.monotonic_ns())
        for peer in list(self.mailbox.peers.values()):
            self._send(peer, spread=spread)

    def _send(self, peer: Peer, *, spread: bool) -> None:
        """One step of one API server."""
        rows = self._rows_of(peer)
        started, rows.joining = rows.joining, []
        if started:
            rows.numbers = np.concatenate([rows.numbers, np.array([number for number, _ in started], np.int64)])
            rows.left = np.concatenate([rows.left, np.array([count for _, count in started], np.int32)])
        if not len(rows.numbers):
            return
        rows.left -= 1
        ended = rows.left == 0
        which = self._step + (rows.numbers if spread else np.zeros_like(rows.numbers))
        output = StepOutput(
            seq=0,
            epoch=self._epoch,
            step=self._step,
            rows=rows.numbers.tobytes(),
            tokens=self._word_ids[which % len(self._word_ids)].tobytes(),
            finishes=(ended * np.uint8(Finish.LENGTH)).tobytes(),
            started_rows=np.array([number for number, _ in started], np.int64).tobytes(),
            started_cached=np.zeros(len(started), np.int32).tobytes(),
            started_queue_us=np.zeros(len(started), np.int32).tobytes(),
        )
        self.mailbox.send(peer, output)
        self._window.sent(len(rows.numbers))
        if ended.any():
            rows.numbers, rows.left = rows.numbers[~ended], rows.left[~ended]

    def _handle(self, peer: Peer, message: Submit | Abort) -> None:
        rows = self._rows_of(peer)
        if isinstance(message, Submit):
            numbers = range(message.number, message.number + message.num_choices)
            rows.joining += [(number, message.sampling.max_tokens) for number in numbers]
        else:
            rows.drop(message.numbers)

    def _rows_of(self, peer: Peer) -> Rows:
        return self._rows.setdefault(peer.index, Rows())

    def _end_peer(self, peer: Peer) -> None:
        self._rows.pop(peer.index, None)

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            seq=0,
            epoch=self._epoch,
            step=self._step,
            num_running=sum(len(rows.numbers) for rows in self._rows.values()),
            num_waiting=0,
            num_waiting_tokens=0,
            num_blocks_used=0,
        )


def _ready(config: EngineConfig, max_model_len: int) -> EngineReady:
    return EngineReady(
        seq=0,
        epoch=config.epoch,
        num_blocks=1 << 20,
        block_size=config.block_size,
        max_model_len=max_model_len,
        max_num_seqs=1 << 16,
        max_num_queued_reqs=1 << 16,
        max_num_queued_tokens=1 << 30,
        max_logprobs=config.max_logprobs,
        prefix_caching=config.enable_prefix_caching,
        hash_key=config.hash_key,
        dtype="float32",
        device="cpu",
    )


def main() -> int:
    """The process's exit status."""
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=EngineConfig)
    die_with(config.supervisor_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    configure_logging("bench engine", level=config.log_level)
    control = socket.socket(fileno=config.control_fd)
    control.settimeout(0)
    board = Scoreboard(config.scoreboard_fd).engine_row(config.rank)
    board.begin(config.epoch)
    engine = BenchEngine(config, Page(Path(sys.argv[1])))
    board.set("state", State.READY)
    send_control(control, Ready())
    while not _is_told_to_stop(control):
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            engine.turn()
    board.set("state", State.ENDED)
    return 0


def _is_told_to_stop(control: socket.socket) -> bool:
    try:
        message = receive_to_child(control)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return message is None or isinstance(message, Stop)


if __name__ == "__main__":
    sys.exit(main())
