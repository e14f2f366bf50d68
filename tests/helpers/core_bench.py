"""An engine core in a thread of the test's process, and an API server's end of the connection, over real sockets."""

import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import zmq

from engine.config import EnginePlan
from engine.core import EngineCore
from engine.mailbox import Mailbox
from protocol.codec import decode_from_engine, encode, float32s, int32s, int64s
from protocol.launch import EngineConfig, ModelFiles
from protocol.messages import (
    PROTOCOL_VERSION,
    Abort,
    EngineReady,
    Finish,
    FromEngine,
    Hello,
    ModelFacts,
    RequestFailed,
    StepLogprobs,
    StepOutput,
    Submit,
    Welcome,
)
from protocol.sampling import Sampling
from protocol.scoreboard import Scoreboard
from protocol.sockets import bind_router, connect_dealer
from tests.helpers.fake_runner import FakeRunner, token_at

VOCAB = 500
EPOCH = 77
DEADLINE_MS = 5000


class Engine:
    """An engine core in a thread of this process."""

    def __init__(self, folder: Path, *, depth: int) -> None:
        self.address = f"ipc://{folder / 'e.sock'}"
        plan = EnginePlan(
            device="cpu",
            dtype="float32",
            max_model_len=512,
            block_size=4,
            num_blocks=400,
            max_num_seqs=16,
            max_num_batched_tokens=64,
            vocab_size=VOCAB,
        )
        board = Scoreboard.create(num_api_servers=0, num_engines=1)
        config = EngineConfig(
            rank=0,
            epoch=EPOCH,
            address=self.address,
            hash_key=b"k",
            model=ModelFiles(name="m", config_dir="", weights=""),
            supervisor_pid=0,
            control_fd=0,
            scoreboard_fd=board.fd,
            max_num_queued_reqs=40,
        )
        facts = ModelFacts(architecture="Fake", vocab_size=VOCAB, eos_token_ids=(), max_position=512)
        welcome = Welcome(seq=0, epoch=EPOCH, version=PROTOCOL_VERSION, model=facts, tokenizer_dir="/t")
        self.context = zmq.Context()
        self.mailbox = Mailbox(
            bind_router(self.context, self.address), epoch=EPOCH, welcome=welcome, on_peer_end=lambda _: None
        )
        runner = FakeRunner(plan, depth=depth)
        self.core = EngineCore(config, plan, runner, self.mailbox, board.engine_row(0), eos_ids=())
        self.mailbox.on_peer_end = self.core.end_peer
        self.mailbox.announce_ready(
            EngineReady(
                seq=0,
                epoch=EPOCH,
                num_blocks=400,
                block_size=4,
                max_model_len=512,
                max_num_seqs=16,
                max_num_queued_reqs=40,
                max_num_queued_tokens=1000,
                max_logprobs=20,
                prefix_caching=True,
                hash_key=b"k",
                dtype="float32",
                device="cpu",
            )
        )
        self._stop = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.core.step()
                self.core.scheduler.check()
                if self.core.is_idle:
                    self.mailbox.router.poll(5)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.context.destroy(linger=0)

    def wait_until_empty(self) -> None:
        deadline = time.monotonic() + 5
        core = self.core
        while not (core.is_idle and core.scheduler.pool.num_held == 0):
            assert time.monotonic() < deadline, "rows, slots or blocks are left over"
            time.sleep(0.005)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert self.error is None


class Peer:
    """One API server's end, with its own idea of the rows that it submitted."""

    def __init__(self, engine: Engine, place: int = 0) -> None:
        self.context = zmq.Context()
        self.socket = connect_dealer(self.context, engine.address, place)
        self.seq = 0
        self.tokens: dict[int, list[int]] = {}
        self.finishes: dict[int, Finish] = {}
        self.failed: dict[int, RequestFailed] = {}
        self.logprobs: dict[int, list[tuple[float, list[int]]]] = {}

    def greet(self) -> "Peer":
        self.send(Hello(seq=0, version=PROTOCOL_VERSION, place=0, life=1))
        assert isinstance(self.receive()[0], Welcome)
        assert isinstance(self.receive()[0], EngineReady)
        return self

    def send(self, message: Hello | Submit | Abort) -> None:
        self.socket.send(encode(msgspec.structs.replace(message, seq=self.seq)))
        self.seq += 1

    def submit(self, number: int, *, prompt: list[int], max_tokens: int, num_choices: int = 1, **sampling: int) -> None:
        self.send(
            Submit(
                seq=0,
                epoch=EPOCH,
                number=number,
                num_choices=num_choices,
                prompt=np.array(prompt, np.int32).tobytes(),
                sampling=Sampling(seed=number, max_tokens=max_tokens, **sampling),  # type: ignore[arg-type]  # by name
            )
        )

    def receive(self) -> tuple[FromEngine, StepLogprobs | None]:
        assert self.socket.poll(DEADLINE_MS), "nothing came"
        return decode_from_engine(self.socket.recv_multipart())

    def run(self, *, until_ended: int) -> None:
        while len(self.finishes) + len(self.failed) < until_ended:
            message, logprobs = self.receive()
            if isinstance(message, StepOutput):
                self._take(message, logprobs)
            elif isinstance(message, RequestFailed):
                for number in range(message.number, message.number + message.num_rows):
                    self.failed[number] = message

    def _take(self, message: StepOutput, logprobs: StepLogprobs | None) -> None:
        numbers = int64s(message.rows).tolist()
        for number, token, finish in zip(numbers, int32s(message.tokens), message.finishes, strict=True):
            assert number not in self.finishes
            if finish != Finish.ABORT:
                self.tokens.setdefault(number, []).append(token)
            if finish:
                self.finishes[number] = Finish(finish)
        if logprobs is not None:
            widths, position = int32s(logprobs.widths), 0
            for index, value, width in zip(int32s(logprobs.index), float32s(logprobs.logprobs), widths, strict=True):
                top = int32s(logprobs.top_ids)[position : position + width].tolist()
                self.logprobs.setdefault(numbers[index], []).append((value, top))
                position += width

    def close(self) -> None:
        self.context.destroy(linger=0)


def expected(number: int, prompt_len: int, count: int) -> list[int]:
    return [token_at(number, prompt_len + i, VOCAB) for i in range(count)]
