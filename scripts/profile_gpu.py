"""Where a decode step's time goes on the GPU: graphs by replay, kernels by torch's profiler, launching by a clock.

usage: python scripts/profile_gpu.py MODEL_FOLDER [--rows 1,64,256] [--context 256] [--kernels 12]

Weights are random. `GPU` is the time of one forward graph and one sample graph back to back; `launch` is what the CPU
spends in `GpuRunner.launch` while the GPU is behind; `step` is launch and collect one step apart, as the loop does it.
"""

import argparse
import cProfile
import io
import pstats
import time
from collections import Counter

import numpy as np
import torch

from engine.batch import ScheduledBatch
from engine.execution.gpu.runner import GpuRunner
from protocol.sampling import Sampling
from tests.helpers.drive_runner import Driver, engine_config, start

NOTHING = np.zeros(0, np.int32)


def fill(driver: Driver, num_rows: int, context: int) -> None:
    """Rows with a computed prompt of `context` tokens in slots 0 .. num_rows - 1."""
    sampling = Sampling(seed=0, max_tokens=10**6, temperature=0.0)
    rng = np.random.default_rng(0)
    rows = [driver.add(slot, rng.integers(0, 30000, size=context).tolist(), sampling) for slot in range(num_rows)]
    for first in range(0, num_rows, 8):
        driver.step(rows[first : first + 8])
    room = [
        (slot, column, driver._free.pop())
        for slot in range(num_rows)
        for column in range(context // 16, context // 16 + 20)
    ]
    blocks = np.array(room, np.int32)
    driver.runner.launch(decode_batch(num_rows, context, blocks))
    driver.runner.collect()


def decode_batch(num_rows: int, position: int, blocks: np.ndarray | None = None) -> ScheduledBatch:
    """Every row decodes at one position."""
    given = np.zeros((0, 3), np.int32) if blocks is None else blocks
    return ScheduledBatch(
        step=0,
        setups=[],
        block_slots=given[:, 0].copy(),
        block_columns=given[:, 1].copy(),
        block_ids=given[:, 2].copy(),
        decode_slots=np.arange(num_rows, dtype=np.int32),
        decode_positions=np.full(num_rows, position, np.int32),
        chunk_slots=NOTHING,
        chunk_starts=NOTHING,
        chunk_lengths=NOTHING,
        chunk_samples=np.zeros(0, np.bool_),
        chunk_prompt_logprobs=NOTHING,
    )


def graph_ms(runner: GpuRunner, num_rows: int, parts: tuple[str, ...], count: int = 50) -> float:
    """Milliseconds of these graphs back to back."""
    found = runner._graphs.find(num_rows)
    assert found is not None
    graphs = [getattr(found, part) for part in parts]
    with runner._enter():
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        for turn in range(count + 5):
            if turn == 5:
                begin.record()
            for graph in graphs:
                graph.replay()
        end.record()
        end.synchronize()
    return begin.elapsed_time(end) / count


def loop_ms(runner: GpuRunner, num_rows: int, context: int, count: int = 100) -> tuple[float, float]:
    """(CPU milliseconds in launch, milliseconds a step) with run-ahead."""
    in_launch = 0.0
    started = time.perf_counter()
    for turn in range(count):
        before = time.perf_counter()
        runner.launch(decode_batch(num_rows, context + 1 + turn))
        in_launch += time.perf_counter() - before
        if turn:
            runner.collect()
    runner.collect()
    return in_launch / count * 1e3, (time.perf_counter() - started) / count * 1e3


def launch_profile(runner: GpuRunner, num_rows: int, context: int, most: int) -> None:
    """What the CPU does in `launch`."""
    profile = cProfile.Profile()
    for turn in range(60):
        profile.enable()
        runner.launch(decode_batch(num_rows, context + 110 + turn))
        profile.disable()
        if turn:
            runner.collect()
    runner.collect()
    lines = io.StringIO()
    pstats.Stats(profile, stream=lines).sort_stats("tottime").print_stats(most)
    print("\n".join(line[:130] for line in lines.getvalue().splitlines()[6:] if line.strip()))


def kernels(runner: GpuRunner, num_rows: int, most: int) -> None:
    """The kernels of one step by their total time."""
    found = runner._graphs.find(num_rows)
    assert found is not None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile, runner._enter():
        found.forward.replay()
        found.greedy.replay()
        torch.cuda.synchronize()
    total: Counter[str] = Counter()
    count: Counter[str] = Counter()
    spans = []
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            total[event.name] += event.device_time
            count[event.name] += 1
            spans.append((event.time_range.start, event.time_range.end))
    if not spans:
        print("   the profiler saw no kernels")
        return
    wall = max(end for _, end in spans) - min(start for start, _ in spans)
    print(f"   {len(spans)} kernels, {sum(total.values()):.0f} us busy of {wall:.0f} us")
    for name, microseconds in total.most_common(most):
        print(f"   {microseconds:8.1f} us  {count[name]:4d} x {microseconds / count[name]:7.2f}  {name[:100]}")


def main() -> None:
    """Each number of rows in turn, on one runner."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rows", default="1,64,256")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--kernels", type=int, default=14)
    args = parser.parse_args()
    sizes = [int(text) for text in args.rows.split(",")]
    config = engine_config(
        args.model, device="cuda", dtype="bfloat16", load_format="dummy", max_num_seqs=max(sizes),
        max_num_batched_tokens=8192, kv_cache_memory_bytes=40 * 2**30, max_model_len=16384,
    )  # fmt: skip
    first = start(config)
    for num_rows in sizes:
        driver = Driver(first.runner, first.plan)
        runner = driver.runner
        assert isinstance(runner, GpuRunner)
        fill(driver, num_rows, args.context)
        forward, both = graph_ms(runner, num_rows, ("forward",)), graph_ms(runner, num_rows, ("forward", "greedy"))
        random = graph_ms(runner, num_rows, ("random",))
        launch, step = loop_ms(runner, num_rows, args.context)
        print(
            f"{num_rows:4d} rows, {args.context}: GPU {both:.3f} ms (forward {forward:.3f}, random draw {random:.3f}),"
            f" launch {launch:.3f} ms, step {step:.3f} ms",
            flush=True,
        )
        kernels(runner, num_rows, args.kernels)
        launch_profile(runner, num_rows, args.context, args.kernels)


if __name__ == "__main__":
    main()
