"""Step times of the torch runner on the CPU, beside those of its matrix products alone.

    scripts/bench_runner.py [--dtype bfloat16] [--threads 1]

Times are CPU seconds of one thread's work divided by the threads, so that other processes disturb them little.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from engine.execution.precision import choose_precision  # noqa: E402
from engine.models.decoder import DecoderWeights  # noqa: E402
from engine.models.shape import read_shape  # noqa: E402
from engine.weights.load import Placement, load_weights, open_source  # noqa: E402
from frontend.model_files.source import resolve_model  # noqa: E402
from protocol.sampling import Sampling  # noqa: E402
from tests.helpers.drive_runner import GREEDY, Driver, engine_config, start  # noqa: E402

CONTEXT = 128
SAMPLINGS = {
    "greedy": GREEDY,
    "T=1": Sampling(seed=1, max_tokens=1000),
    "T=0.8 top_p=0.95": Sampling(seed=1, max_tokens=1000, temperature=0.8, top_p=0.95),
    "T=0.8 top_p=0.95 top_k=50": Sampling(seed=1, max_tokens=1000, temperature=0.8, top_p=0.95, top_k=50),
    "greedy, penalties": Sampling(seed=1, max_tokens=1000, temperature=0.0, repetition_penalty=1.1),
    "greedy, 5 logprobs": Sampling(seed=1, max_tokens=1000, temperature=0.0, logprobs=5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    files = resolve_model("demo", run_dir=Path(tempfile.mkdtemp()), progress=lambda _line: None)
    config = engine_config(
        Path(files.config_dir),
        Path(files.weights),
        dtype=options.dtype,
        num_threads=options.threads,
        max_num_seqs=32,
        kv_cache_memory_bytes=2**30,
    )
    driver = start(config)
    shape = read_shape(files.config_dir)
    precision = choose_precision(config.dtype, shape.dtype, torch.device("cpu"))
    placement = Placement(
        device=torch.device("cpu"), rounded=precision.rounded, compute=precision.compute, packed=precision.packed
    )
    weights = load_weights(open_source(config, shape), shape, placement)

    print(f"{options.dtype}, {options.threads} threads, context {CONTEXT}; ms a step")
    print(f"{'step':44}{'all':>9}{'products':>10}")
    for rows in (1, 8, 32):
        products = products_ms(weights, rows, rows, options.threads)
        for name, sampling in SAMPLINGS.items() if rows == 32 else [("greedy", GREEDY)]:
            spent = decode_ms(driver, rows, sampling, options.threads)
            print(f"{f'decode {rows}, {name}':44}{spent:9.1f}{products:10.1f}", flush=True)
    products = products_ms(weights, 512, 1, options.threads)
    print(f"{'prefill 512':44}{prefill_ms(driver, 512, options.threads):9.1f}{products:10.1f}")


def decode_ms(driver: Driver, rows: int, sampling: Sampling, threads: int) -> float:
    random = np.random.default_rng(0)
    running = [driver.add(slot, random.integers(10, 40_000, CONTEXT).tolist(), sampling) for slot in range(rows)]
    driver.step(running)
    return median_ms(lambda: driver.step(running), 9, threads)


def prefill_ms(driver: Driver, tokens: int, threads: int) -> float:
    random = np.random.default_rng(0)

    def prefill() -> None:
        driver.step([driver.add(0, random.integers(10, 40_000, tokens).tolist())])

    return median_ms(prefill, 3, threads)


def products_ms(weights: DecoderWeights, tokens: int, logit_rows: int, threads: int) -> float:
    """The matrix products of one step."""
    dtype = weights.final_norm.dtype
    hidden = len(weights.final_norm)
    x = torch.randn(tokens, hidden, dtype=dtype)

    def multiply() -> None:
        with torch.inference_mode():
            for layer in weights.layers:
                heads = layer.qkv(x)[:, :hidden].contiguous()
                layer.output(heads)
                layer.down(layer.gate_up(x).chunk(2, 1)[0].contiguous())
            weights.head(x[:logit_rows])

    return median_ms(multiply, 3 if tokens > 32 else 9, threads)


def median_ms(work: Callable[[], object], count: int, threads: int) -> float:
    work()
    times = []
    for _ in range(count):
        started = time.process_time()
        work()
        times.append((time.process_time() - started) / threads)
    return statistics.median(times) * 1000


if __name__ == "__main__":
    main()
