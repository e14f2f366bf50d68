"""Checks each kernel against float32 on the GPU, then times its configs against the floor in bytes or FLOPs.

usage: python -m scripts.bench_kernels [--only decode,prefill] [--json FILE]

Prints the best configs of each shape (* marks the one engine/kernels/tuning.py has); FILE gets all of them. A module of
scripts/kernel_benches with `compile_jobs`, `check` and `run` is one entry of SUITES.
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch

from scripts.kernel_benches import decode, one_row, prefill
from scripts.kernel_benches.compile_ahead import compile_ahead
from scripts.kernel_benches.measure import Results, measure_card

SUITES = {"decode": decode, "prefill": prefill, "one_row": one_row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(SUITES), help="suites, comma-separated")
    parser.add_argument("--json", type=Path, help="where all timings go")
    args = parser.parse_args()
    suites = [SUITES[name] for name in args.only.split(",")]

    started = time.monotonic()
    results = Results()
    jobs = [job for suite in suites for job in suite.compile_jobs()]
    results.failures += compile_ahead(jobs, num_processes=max(1, min(14, (os.cpu_count() or 2) - 2)))
    print(f"{len(jobs)} kernels compiled in {time.monotonic() - started:.0f} s", flush=True)
    card = measure_card()
    print(
        f"{torch.cuda.get_device_name()}: copy {card.bytes_per_us / 1e6:.2f} TB/s, "
        f"8192^3 product {card.flops_per_us / 1e6:.0f} TFLOP/s",
        flush=True,
    )
    for suite in suites:
        results.attempt(f"check of {suite.NAME}", lambda s=suite: s.check(results))  # type: ignore[misc]
        print(f"{suite.NAME} checked, {time.monotonic() - started:.0f} s", flush=True)
        suite.run(card, results)
        print(f"{suite.NAME} timed, {time.monotonic() - started:.0f} s", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results.as_json(), indent=1))
    print(f"{len(results.failures)} failures", *results.failures, sep="\n")


if __name__ == "__main__":
    main()
