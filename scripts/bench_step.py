"""CPU time of an engine step beside the forward pass: the real loop, sockets and encoding on a stub runner.

usage: python scripts/bench_step.py [--slots 512,64] [--api-servers 4] [--steps 2000] [--depth 0] [--json FILE]

All slots decode all the time; their block boundaries are staggered, so that slots / 16 of them cross one in each step
(32 of 512). The API servers are processes that read and throw away. Time is the engine thread's CPU time for `step()`.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np
import zmq

from engine.batch import ScheduledBatch, StepResult
from engine.config import EnginePlan
from engine.core import EngineCore
from engine.mailbox import Mailbox
from protocol.codec import encode
from protocol.launch import EngineConfig, ModelFiles
from protocol.messages import PROTOCOL_VERSION, EngineReady, Hello, ModelFacts, Submit, Welcome
from protocol.sampling import Sampling
from protocol.scoreboard import Scoreboard
from protocol.sockets import bind_router, connect_dealer

BLOCK = 16
PROMPT = 64


class StubRunner:
    """Returns the same token for every sampled row."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self._sizes: deque[int] = deque()

    def launch(self, batch: ScheduledBatch) -> None:
        """Remember how many rows are to get a token."""
        self._sizes.append(len(batch.decode_slots) + int(batch.chunk_samples.sum()))

    def prepare(self) -> bool:
        """Nothing to prepare."""
        return False

    def collect(self) -> StepResult:
        """One token each."""
        size = self._sizes.popleft()
        return StepResult(tokens=np.full(size, 7, np.int32), failed=np.zeros(size, np.bool_))


def read_all(address: str, place: int, numbers: list[int], max_tokens: int) -> None:
    """An API server that submits its rows and then only reads."""
    socket = connect_dealer(zmq.Context(), address, place)
    socket.send(encode(Hello(seq=0, version=PROTOCOL_VERSION, place=place, life=1)))
    for _ in range(2):
        socket.recv()
    for seq, number in enumerate(numbers):
        prompt = np.full(PROMPT + number % BLOCK, 5, np.int32).tobytes()  # staggers the block boundaries
        sampling = Sampling(seed=number, max_tokens=max_tokens)
        socket.send(encode(Submit(seq=seq + 1, epoch=1, number=number, prompt=prompt, sampling=sampling)))
    while True:
        socket.recv_multipart()


def measure(num_slots: int, num_api: int, num_steps: int, depth: int) -> dict[str, float]:
    """Microseconds a step: median, p99, mean; and how many rows got a new block, on average."""
    max_len = PROMPT + BLOCK + num_steps + 200
    blocks = num_slots * (max_len // BLOCK + 2)
    plan = EnginePlan(
        device="cpu",
        dtype="float32",
        max_model_len=max_len,
        block_size=BLOCK,
        num_blocks=blocks,
        max_num_seqs=num_slots,
        max_num_batched_tokens=8192,
        vocab_size=32000,
    )
    board = Scoreboard.create(num_api_servers=num_api, num_engines=1)
    config = EngineConfig(
        rank=0,
        epoch=1,
        address="",
        hash_key=b"k",
        model=ModelFiles(name="", config_dir="", weights=""),
        supervisor_pid=0,
        control_fd=0,
        scoreboard_fd=board.fd,
    )
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{Path(folder) / 'engine.sock'}"
        context = zmq.Context()
        facts = ModelFacts(architecture="", vocab_size=32000, eos_token_ids=(2,), max_position=max_len)
        welcome = Welcome(seq=0, epoch=1, version=PROTOCOL_VERSION, model=facts, tokenizer_dir="")
        mailbox = Mailbox(bind_router(context, address), epoch=1, welcome=welcome, on_peer_end=lambda _: None)
        core = EngineCore(config, plan, StubRunner(depth), mailbox, board.engine_row(0), eos_ids=(2,))
        mailbox.on_peer_end = core.end_peer
        mailbox.announce_ready(
            EngineReady(
                seq=0,
                epoch=1,
                num_blocks=blocks,
                block_size=BLOCK,
                max_model_len=max_len,
                max_num_seqs=num_slots,
                max_num_queued_reqs=4096,
                max_num_queued_tokens=1 << 22,
                max_logprobs=20,
                prefix_caching=True,
                hash_key=b"k",
                dtype="float32",
                device="cpu",
            )
        )
        readers = [
            multiprocessing.Process(
                target=read_all, args=(address, place, list(range(place, num_slots, num_api)), max_len), daemon=True
            )
            for place in range(num_api)
        ]
        for reader in readers:
            reader.start()
        try:
            return _time_steps(core, num_slots, num_steps)
        finally:
            for reader in readers:
                reader.terminate()
                reader.join()
            context.destroy(linger=0)


def _time_steps(core: EngineCore, num_slots: int, num_steps: int) -> dict[str, float]:
    deadline = time.monotonic() + 60
    while not core.scheduler.slots.decoding.all():
        core.step()
        if time.monotonic() > deadline:
            raise TimeoutError("the rows do not all run")
    for _ in range(50):
        core.step()
    held = core.scheduler.pool.num_held
    times = []
    for _ in range(num_steps):
        started = time.thread_time_ns()
        core.step()
        times.append((time.thread_time_ns() - started) / 1000)
        time.sleep(0.001)  # a forward pass: the readers drain, as they would
    assert core.scheduler.slots.num_running == num_slots
    times.sort()
    return {
        "median_us": round(statistics.median(times), 1),
        "p99_us": round(times[int(0.99 * len(times))], 1),
        "mean_us": round(statistics.fmean(times), 1),
        "new_blocks_per_step": round((core.scheduler.pool.num_held - held) / num_steps, 1),
    }


def main() -> None:
    """Measure each number of slots, three times, and print the run with the median median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", default="512,64")
    parser.add_argument("--api-servers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--json")
    args = parser.parse_args()
    results = {}
    for slots in map(int, args.slots.split(",")):
        runs = sorted(
            (measure(slots, args.api_servers, args.steps, args.depth) for _ in range(3)), key=lambda r: r["median_us"]
        )
        results[slots] = runs[1]
        print(f"{slots:5d} slots, {args.api_servers} API servers: {results[slots]}", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
