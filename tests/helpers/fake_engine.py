"""An engine core without a model: the real protocol on a real ROUTER, tokens that are a function of seed and position.

It runs in a thread of the test's process. What tests set is read at each turn of its loop: `muted`, `loading`,
`refusal`, `answer`, `step_s`, ...; what it saw stands in `submits`, `aborts`, `peers_ended`.
"""

import threading
import time
from array import array
from collections import deque
from dataclasses import dataclass, field
from hashlib import blake2b
from types import TracebackType

import zmq

from protocol.codec import decode_to_engine, encode, int32s
from protocol.errors import PeerError
from protocol.lifecycle import Connection, Link
from protocol.messages import (
    PROTOCOL_VERSION,
    Abort,
    EngineReady,
    FailureCode,
    Finish,
    FromEngine,
    Heartbeat,
    Hello,
    ModelFacts,
    PromptLogprobs,
    RequestFailed,
    StepLogprobs,
    StepOutput,
    Submit,
    ToEngine,
    Welcome,
)
from protocol.sockets import bind_router

BLOCK_SIZE = 16
EOS_ID = 2
_BEAT_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What every `Submit` is answered with while it is set."""

    code: FailureCode
    message: str = "refused by the test"
    field: str | None = None
    retry_after_s: float | None = None


@dataclass(slots=True, kw_only=True)
class FakeRow:
    """One choice."""

    submit: Submit
    number: int
    seed: int
    num_prompt: int
    outputs: list[int]
    num_cached: int
    is_new: bool = True
    aborted: bool = False


@dataclass(slots=True)
class Peer:
    """One API server's connection."""

    connection: Connection = field(default_factory=Connection)
    rows: dict[int, FakeRow] = field(default_factory=dict)


def next_token(seed: int, position: int, vocab_size: int) -> int:
    """What the fake model draws: never the eos token."""
    digest = blake2b(seed.to_bytes(8, "little") + position.to_bytes(8, "little"), digest_size=4).digest()
    token = int.from_bytes(digest, "little") % vocab_size
    return token if token != EOS_ID else EOS_ID + 1


def logprob_of(token: int) -> float:
    """A log-probability that float32 holds exactly."""
    return -0.5 - 0.25 * (token % 4)


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
        prompt = int32s(submit.prompt)
        hashes = [submit.block_hashes[i : i + 16] for i in range(0, len(submit.block_hashes), 16)]
        num_cached = min(BLOCK_SIZE * sum(h in self._blocks_seen for h in hashes), len(prompt) - 1)
        self._blocks_seen.update(hashes)
        for choice in range(submit.num_choices):
            number = submit.number + choice
            if number in peer.rows:
                raise PeerError(f"row {number} is open already")
            peer.rows[number] = FakeRow(
                submit=submit,
                number=number,
                seed=(submit.sampling.seed + choice) % 2**64,
                num_prompt=len(prompt),
                outputs=list(int32s(submit.outputs)),
                num_cached=num_cached,
            )
        if submit.prompt_logprobs is not None:
            self._send_prompt_logprobs(identity, peer, submit)

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

    def _send_prompt_logprobs(self, identity: bytes, peer: Peer, submit: Submit) -> None:
        """In two chunks where the prompt is long enough."""
        prompt, width = int32s(submit.prompt), submit.prompt_logprobs or 0
        middle = max(1, len(prompt) // 2)
        for first, last in ((1, middle), (middle, len(prompt))):
            tokens = prompt[first:last]
            if not tokens:
                continue
            tops = [(t + i) % self.vocab_size for t in tokens for i in range(width)]
            self._send(
                identity,
                PromptLogprobs(
                    seq=peer.connection.next_sent,
                    epoch=self.epoch,
                    number=submit.number,
                    first=first,
                    logprobs=array("f", [logprob_of(t) for t in tokens]).tobytes(),
                    ranks=array("i", [1] * len(tokens)).tobytes(),
                    width=width,
                    top_ids=array("i", tops).tobytes(),
                    top_logprobs=array("f", [logprob_of(t) for t in tops]).tobytes(),
                ),
            )

    def _take_step(self) -> None:
        self._step += 1
        for identity, peer in list(self._peers.items()):
            if peer.rows and peer.connection.link is Link.READY:
                self._step_peer(identity, peer)

    def _step_peer(self, identity: bytes, peer: Peer) -> None:
        drawn = [(row, *self._draw(row)) for row in peer.rows.values()]
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
        logprobs = self._logprobs([(row, token) for row, token, _ in drawn])
        for row, token, finish in drawn:
            row.is_new = False
            row.outputs.append(token)
            self.num_tokens += 1
            if finish:
                del peer.rows[row.number]
        self._send(identity, message, *([] if logprobs is None else [encode(logprobs)]))

    def _draw(self, row: FakeRow) -> tuple[int, Finish]:
        sampling, num_outputs = row.submit.sampling, len(row.outputs)
        if row.aborted:
            return 0, Finish.ABORT
        if self.answer is None:
            token = next_token(row.seed, row.num_prompt + num_outputs, self.vocab_size)
        else:
            token = self.answer[num_outputs] if num_outputs < len(self.answer) else EOS_ID
        if token == EOS_ID and not sampling.ignore_eos:
            return token, Finish.EOS
        if token in sampling.stop_token_ids and num_outputs >= sampling.min_tokens:
            return token, Finish.STOP_TOKEN
        return token, Finish.LENGTH if num_outputs + 1 >= sampling.max_tokens else Finish.RUNNING

    def _logprobs(self, drawn: list[tuple[FakeRow, int]]) -> StepLogprobs | None:
        asked = [(i, row.submit.sampling.logprobs, token) for i, (row, token) in enumerate(drawn)]
        wanted = [(i, width, token) for i, width, token in asked if width is not None]
        if not wanted:
            return None
        tops = [(token + i) % self.vocab_size for _, width, token in wanted for i in range(width)]
        return StepLogprobs(
            index=array("i", [i for i, _, _ in wanted]).tobytes(),
            logprobs=array("f", [logprob_of(token) for _, _, token in wanted]).tobytes(),
            ranks=array("i", [1] * len(wanted)).tobytes(),
            widths=array("i", [width for _, width, _ in wanted]).tobytes(),
            top_ids=array("i", tops).tobytes(),
            top_logprobs=array("f", [logprob_of(t) for t in tops]).tobytes(),
        )

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
