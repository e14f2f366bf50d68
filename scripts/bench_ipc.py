"""What sending a step to the API servers costs the engine: the real outbox, mailbox and sockets, beside the real loop.

usage: python -m scripts.bench_ipc [--api-servers 1,2,4,8,16] [--slots 512] [--steps 500] [--json FILE]

Prints for each number of API servers: messages a second while the loop does nothing else; microseconds and bytes of a
token on the engine's side; CPU time of libzmq's own thread; the outbox's share of a step's CPU time; and how much
slower plain Python runs while steps are being sent (1.00: the socket thread takes nothing from the step loop, the
interpreter's lock included; on a machine with few cores the readers themselves take some).
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import zmq

from engine.collector import StepNews
from engine.mailbox import Mailbox
from engine.outbox import Outbox
from protocol.codec import encode
from protocol.messages import PROTOCOL_VERSION, EngineReady, Hello, ModelFacts, Welcome
from protocol.sockets import bind_router, connect_dealer
from scripts.bench_step import measure as measure_step

_EPOCH = 1
_DEADLINE_S = 30.0
_STEP_S = 0.001  # between two steps: readers drain, as API servers would
_PLAIN_LOOPS = 20_000


def read_all(address: str, place: int) -> None:
    """An API server that says hello and then only reads."""
    socket = connect_dealer(zmq.Context(), address, place)
    socket.send(encode(Hello(seq=0, version=PROTOCOL_VERSION, place=place, life=1)))
    while True:
        socket.recv_multipart()


@contextmanager
def connected(num_api_servers: int) -> Iterator[Mailbox]:
    """A mailbox with so many ready peers, each a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{Path(folder) / 'engine.sock'}"
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        facts = ModelFacts(architecture="", vocab_size=32000, eos_token_ids=(2,), max_position=4096)
        welcome = Welcome(seq=0, epoch=_EPOCH, version=PROTOCOL_VERSION, model=facts, tokenizer_dir="")
        mailbox = Mailbox(bind_router(context, address), epoch=_EPOCH, welcome=welcome, on_peer_end=lambda _: None)
        mailbox.announce_ready(_ready())
        readers = [
            multiprocessing.Process(target=read_all, args=(address, place), daemon=True)
            for place in range(num_api_servers)
        ]
        for reader in readers:
            reader.start()
        try:
            deadline = time.monotonic() + _DEADLINE_S
            while len(mailbox.peers) < num_api_servers:
                mailbox.take(lambda *_: None)
                if time.monotonic() > deadline:
                    raise TimeoutError("not all readers said hello")
            yield mailbox
        finally:
            for reader in readers:
                reader.terminate()
                reader.join()
            context.destroy(linger=0)


def _ready() -> EngineReady:
    return EngineReady(
        seq=0,
        epoch=_EPOCH,
        num_blocks=1,
        block_size=16,
        max_model_len=4096,
        max_num_seqs=4096,
        max_num_queued_reqs=4096,
        max_num_queued_tokens=1 << 22,
        max_logprobs=20,
        prefix_caching=True,
        hash_key=b"k",
        dtype="float32",
        device="cpu",
    )


def measure(num_api_servers: int, num_slots: int, num_steps: int) -> dict[str, float]:
    """One row of the table, without the loop's share."""
    with connected(num_api_servers) as mailbox:
        outbox, news = Outbox(mailbox), _news(sorted(mailbox.peers), num_slots)
        alone = _plain_python(lambda: None)
        beside = _plain_python(lambda: outbox.send(1, news))
        times, cpu_s = [], time.process_time()
        thread_s = time.thread_time()
        for step in range(num_steps):
            began = time.thread_time_ns()
            outbox.send(step, news)
            times.append((time.thread_time_ns() - began) / 1000)
            time.sleep(_STEP_S)
        io_thread_s = (time.process_time() - cpu_s) - (time.thread_time() - thread_s)
        num_bytes = _step_bytes(mailbox, outbox, news)
        num_messages, seconds = _as_fast_as_possible(outbox, news, num_api_servers)
        if len(mailbox.peers) != num_api_servers:
            raise RuntimeError("a reader was too slow, and was ended")
    num_tokens = len(news.tokens)
    return {
        "messages_per_s": round(num_messages / seconds),
        "us_per_step": round(statistics.median(times), 1),
        "us_per_token": round(statistics.median(times) / num_tokens, 4),
        "bytes_per_token": round(num_bytes / num_tokens, 2),
        "io_thread_us_per_step": round(1e6 * io_thread_s / num_steps, 1),
        "plain_python_slowdown": round(beside / alone, 3),
    }


def _news(owners: list[int], num_slots: int) -> StepNews:
    """A steady decode step: every slot got a token, and the slots belong to the owners in equal parts."""
    return StepNews(
        owners=np.sort(np.resize(np.array(owners, np.int32), num_slots)),
        numbers=np.arange(num_slots, dtype=np.int64),
        tokens=np.full(num_slots, 7, np.int32),
        finishes=np.zeros(num_slots, np.uint8),
        logprobs=None,
        logprob_widths=np.zeros(0, np.int32),
        started=[],
        failed=[],
        prompt_logprobs=[],
        ended=[],
    )


def _step_bytes(mailbox: Mailbox, outbox: Outbox, news: StepNews) -> int:
    """Of all messages of one step, encoded. The readers do not mind the gap that it leaves in their numbers."""
    router, counting = mailbox.router, _Counting()
    mailbox.router = cast("zmq.Socket[bytes]", counting)
    outbox.send(1, news)
    mailbox.router = router
    return counting.num_bytes


class _Counting:
    """A router that sends nothing."""

    num_bytes = 0

    def send(self, frame: bytes, _: int) -> None:
        """Count the payload, which is what is not the identity."""
        self.num_bytes += len(frame) if not frame.startswith(b"H") else 0


def _plain_python(between: Callable[[], None]) -> float:
    """Seconds of a loop that computes, with `between` before each run."""
    times = []
    for _ in range(40):
        between()
        began, total = time.perf_counter(), 0
        for i in range(_PLAIN_LOOPS):
            total += i
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _as_fast_as_possible(outbox: Outbox, news: StepNews, num_api_servers: int) -> tuple[int, float]:
    """A burst that stays below the high-water mark, so that no reader is ended for being slow."""
    num_steps = 1000
    began = time.perf_counter()
    for step in range(num_steps):
        outbox.send(step, news)
    return num_steps * num_api_servers, time.perf_counter() - began


def main() -> None:
    """Every number of API servers, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api-servers", default="1,2,4,8,16")
    parser.add_argument("--slots", type=int, default=512)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results = {}
    for count in map(int, args.api_servers.split(",")):
        row = measure(count, args.slots, args.steps)
        step = measure_step(args.slots, count, args.steps, 0)
        row["loop_us_per_step"] = step["median_us"]
        row["share_of_step"] = round(row["us_per_step"] / step["median_us"], 2)
        results[count] = row
        print(f"{count:3d} API servers, {args.slots} slots: {row}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
