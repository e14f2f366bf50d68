"""An engine core without a model: the real protocol on a real ROUTER, the tokens of `fake_tokens`.

It runs in a thread of the test's process. What tests set is read at each turn of its loop: `muted`, `loading`,
`refusal`, `answer`, `step_s`, ...; what it saw stands in `submits`, `aborts`, `peers_ended`.
"""

import threading
import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType

import zmq

from protocol.codec import decode_to_engine, encode
from protocol.errors import PeerError
from protocol.lifecycle import Connection, Link
from protocol.messages import (
    PROTOCOL_VERSION,
    Abort,
    EngineReady,
    FailureCode,
    FromEngine,
    Heartbeat,
    Hello,
    ModelFacts,
    RequestFailed,
    StepOutput,
    Submit,
    ToEngine,
    Welcome,
)
from protocol.sockets import bind_router
from tests.helpers.fake_tokens import (
    EOS_ID,
    FakeRow,
    draw,
    logprob_of,
    next_token,
    prompt_logprobs,
    rows_of,
    step_logprobs,
)

__all__ = ["BLOCK_SIZE", "EOS_ID", "FakeEngine", "Refusal", "logprob_of", "next_token"]

BLOCK_SIZE = 16
_BEAT_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What every `Submit` is answered with while it is set."""

    code: FailureCode
    message: str = "refused by the test"
    field: str | None = None
    retry_after_s: float | None = None


@dataclass(slots=True)
class Peer:
    """One API server's connection."""

    connection: Connection = field(default_factory=Connection)
    rows: dict[int, FakeRow] = field(default_factory=dict)


class FakeEngine:
    """Started by `with`; `kill()` is a sudden death."""

    def __init__(
        self,
        address: str,
        *,
        epoch: int = 0xE0C,
        tokenizer_dir: str = "",
        vocab_size: int = 256,
        max_model_len: int = 2048,
        step_s: float = 0.002,
        hash_key: bytes = b"fake",
    ) -> None:
        self.address = address
        self.epoch = epoch
        self.tokenizer_dir = tokenizer_dir
        self.vocab_size = vocab_size
        self.max_model_len = max_model_len
        self.step_s = step_s
        self.hash_key = hash_key
        # what tests set
        self.answer: list[int] | None = None  # these tokens and then eos, in place of `next_token`
        self.loading = False  # welcome, but not ready
        self.muted = False  # sends nothing, reads nothing
        self.paused = False  # heartbeats, but no steps
        self.refusal: Refusal | None = None
        self.num_waiting = 0  # what the heartbeat says
        # what tests read
        self.submits: list[Submit] = []
        self.aborts: list[int] = []
        self.hellos: list[Hello] = []
        self.peers_ended = 0
        self.num_tokens = 0
        self._garbage: deque[list[bytes]] = deque()
        self._blocks_seen: set[bytes] = set()
        self._peers: dict[bytes, Peer] = {}
        self._step = 0
        self._ending = threading.Event()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fake-engine", daemon=True)

    def __enter__(self) -> "FakeEngine":
        self._thread.start()
        assert self._bound.wait(5)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    def kill(self) -> None:
        """Die as a process does: the socket is gone, nothing is said."""
        self._ending.set()
        self._thread.join(5)
        assert not self._thread.is_alive()

    def send_garbage(self, *frames: bytes) -> None:
        """Send these frames to every peer."""
        self._garbage.append(list(frames))

    @property
    def num_open_rows(self) -> int:
        return sum(len(peer.rows) for peer in list(self._peers.values()))

    # --- the loop ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = bind_router(context, self.address)
        self._bound.set()
        last_step = last_beat = 0.0
        while not self._ending.is_set():
            now = time.monotonic()
            if self.muted:
                time.sleep(0.005)
                continue
            self._take_mail(max(0.0, last_step + self.step_s - now))
            self._send_garbage_now()
            self._announce_ready()
            if time.monotonic() - last_step >= self.step_s and not self.paused:
                last_step = time.monotonic()
                self._take_step()
            if time.monotonic() - last_beat >= _BEAT_S:
                last_beat = time.monotonic()
                self._beat()
        context.destroy(linger=0)

    def _take_mail(self, wait_s: float) -> None:
        timeout_ms = max(1, int(wait_s * 1000))
        while self._socket.poll(timeout_ms):
            identity, *frames = self._socket.recv_multipart()
            timeout_ms = 0
            peer = self._peers.setdefault(identity, Peer())
            try:
                message = decode_to_engine(frames)
                peer.connection.received(message)
                self._handle(identity, peer, message)
            except PeerError:
                self._end_peer(identity)

    def _handle(self, identity: bytes, peer: Peer, message: ToEngine) -> None:
        if isinstance(message, Hello):
            self.hellos.append(message)
            facts = ModelFacts(
                architecture="Fake",
                vocab_size=self.vocab_size,
                eos_token_ids=(EOS_ID,),
                max_position=self.max_model_len,
            )
            self._send(
                identity,
                Welcome(
                    seq=peer.connection.next_sent,
                    epoch=self.epoch,
                    version=PROTOCOL_VERSION,
                    model=facts,
                    tokenizer_dir=self.tokenizer_dir,
                ),
            )
            return
        if message.epoch != self.epoch:
            raise PeerError("another epoch")
        if isinstance(message, Submit):
            self._admit(identity, peer, message)
        else:
            self._abort(peer, message)

    def _admit(self, identity: bytes, peer: Peer, submit: Submit) -> None:
        self.submits.append(submit)
        if self.refusal is not None:
            self._refuse(identity, peer, submit, self.refusal)
            return
        hashes = [submit.block_hashes[i : i + 16] for i in range(0, len(submit.block_hashes), 16)]
        num_cached = min(BLOCK_SIZE * sum(h in self._blocks_seen for h in hashes), len(submit.prompt) // 4 - 1)
        self._blocks_seen.update(hashes)
        for row in rows_of(submit, num_cached=num_cached):
            if row.number in peer.rows:
                raise PeerError(f"row {row.number} is open already")
            peer.rows[row.number] = row
        if submit.prompt_logprobs is not None:
            for message in prompt_logprobs(submit, seq=peer.connection.next_sent, vocab_size=self.vocab_size):
                self._send(identity, message)

    def _refuse(self, identity: bytes, peer: Peer, submit: Submit, refusal: Refusal) -> None:
        self._send(
            identity,
            RequestFailed(
                seq=peer.connection.next_sent,
                epoch=self.epoch,
                number=submit.number,
                num_rows=submit.num_choices,
                code=refusal.code,
                message=refusal.message,
                field=refusal.field,
                retry_after_s=refusal.retry_after_s,
            ),
        )

    def _abort(self, peer: Peer, abort: Abort) -> None:
        self.aborts.extend(abort.numbers)
        for number in abort.numbers:
            if number in peer.rows:
                peer.rows[number].aborted = True

    def _take_step(self) -> None:
        self._step += 1
        for identity, peer in list(self._peers.items()):
            if peer.rows and peer.connection.link is Link.READY:
                self._step_peer(identity, peer)

    def _step_peer(self, identity: bytes, peer: Peer) -> None:
        drawn = [(row, *draw(row, vocab_size=self.vocab_size, answer=self.answer)) for row in peer.rows.values()]
        new = [row for row, _, _ in drawn if row.is_new]
        message = StepOutput(
            seq=peer.connection.next_sent,
            epoch=self.epoch,
            step=self._step,
            rows=array("q", [row.number for row, _, _ in drawn]).tobytes(),
            tokens=array("i", [token for _, token, _ in drawn]).tobytes(),
            finishes=bytes(finish for _, _, finish in drawn),
            started_rows=array("q", [row.number for row in new]).tobytes(),
            started_cached=array("i", [row.num_cached for row in new]).tobytes(),
            started_queue_us=array("i", [0] * len(new)).tobytes(),
        )
        logprobs = step_logprobs([(row, token) for row, token, _ in drawn], vocab_size=self.vocab_size)
        for row, token, finish in drawn:
            row.is_new = False
            row.outputs.append(token)
            self.num_tokens += 1
            if finish:
                del peer.rows[row.number]
        self._send(identity, message, *([] if logprobs is None else [encode(logprobs)]))

    def _announce_ready(self) -> None:
        if self.loading:
            return
        for identity, peer in list(self._peers.items()):
            if peer.connection.link is Link.WELCOMED:
                self._send(
                    identity,
                    EngineReady(
                        seq=peer.connection.next_sent,
                        epoch=self.epoch,
                        num_blocks=1024,
                        block_size=BLOCK_SIZE,
                        max_model_len=self.max_model_len,
                        max_num_seqs=256,
                        max_num_queued_reqs=64,
                        max_num_queued_tokens=100_000,
                        max_logprobs=20,
                        prefix_caching=True,
                        hash_key=self.hash_key,
                        dtype="float32",
                        device="cpu",
                    ),
                )

    def _beat(self) -> None:
        for identity, peer in list(self._peers.items()):
            if peer.connection.link in (Link.WELCOMED, Link.READY):
                self._send(
                    identity,
                    Heartbeat(
                        seq=peer.connection.next_sent,
                        epoch=self.epoch,
                        step=self._step,
                        num_running=len(peer.rows),
                        num_waiting=self.num_waiting,
                        num_waiting_tokens=0,
                        num_blocks_used=0,
                    ),
                )

    def _send_garbage_now(self) -> None:
        while self._garbage:
            frames = self._garbage.popleft()
            for identity in list(self._peers):
                self._send_frames(identity, frames)

    def _send(self, identity: bytes, message: FromEngine, *more: bytes) -> None:
        self._peers[identity].connection.sent(message)
        self._send_frames(identity, [encode(message), *more])

    def _send_frames(self, identity: bytes, frames: list[bytes]) -> None:
        try:
            self._socket.send_multipart([identity, *frames], zmq.NOBLOCK)
        except zmq.ZMQError:  # EHOSTUNREACH: it is gone; EAGAIN: it does not read
            self._end_peer(identity)

    def _end_peer(self, identity: bytes) -> None:
        if self._peers.pop(identity, None) is not None:
            self.peers_ended += 1
