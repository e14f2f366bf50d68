"""Compares the GPU runner with the CPU runner in float32, token for token, on small random models of each architecture.

usage: python scripts/check_gpu.py        on a machine with a GPU; prints one line a case, exit status 1 if one failed
"""

import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from protocol.sampling import Sampling
from tests.helpers.drive_runner import Driver, engine_config, start
from tests.helpers.small_models import MODELS, save_model

SAMPLINGS = [
    Sampling(seed=1, max_tokens=1000, temperature=0.0),
    Sampling(seed=2, max_tokens=1000, temperature=1.0),
    Sampling(seed=3, max_tokens=1000, temperature=0.7, top_k=20, top_p=0.9),
    Sampling(seed=4, max_tokens=1000, temperature=1.3, min_p=0.05),
    Sampling(seed=5, max_tokens=1000, temperature=0.0, repetition_penalty=1.2, logprobs=3),
]


def outputs(driver: Driver, *, chunk: int, samplings: list[Sampling], count: int) -> list[list[int]]:
    """Rows of different lengths, some joining later than others."""
    rng = np.random.default_rng(5)
    rows = [
        driver.add(slot, rng.integers(0, 190, size=int(length)).tolist(), sampling)
        for slot, (length, sampling) in enumerate(zip((5, 33, 64, 17, 120), samplings, strict=True))
    ]
    driver.generate(rows[:2], 4, chunk=chunk)
    return driver.generate(rows, count, chunk=chunk)


def compare(folder: Path, **how: object) -> str:
    """How many tokens of all rows are equal."""
    drivers = [start(engine_config(folder, device=device, max_num_seqs=32)) for device in ("cpu", "cuda")]
    while drivers[1].runner.prepare():  # every graph, so that steps of all kinds use theirs
        pass
    found = [outputs(driver, count=40, **how) for driver in drivers]  # type: ignore[arg-type]  # by keyword
    same = sum(a == b for row, other in zip(*found, strict=True) for a, b in zip(row, other, strict=True))
    total = sum(map(len, found[0]))
    if same < total:
        where = [
            next((i for i, (a, b) in enumerate(zip(x, y, strict=True)) if a != b), None)
            for x, y in zip(*found, strict=True)
        ]
        raise AssertionError(f"{same} of {total} tokens are equal; rows differ from {where}")
    return f"{same} of {total} tokens are equal"


def main() -> int:
    """Every case; a failure does not stop the others."""
    failures = 0
    cases: list[tuple[str, Callable[[], str]]] = []
    with tempfile.TemporaryDirectory() as parent:
        for name in MODELS:
            folder = Path(parent) / name
            save_model(name, folder)
            greedy, mixed = [SAMPLINGS[0]] * 5, SAMPLINGS
            cases += [
                (f"{name}, greedy, whole prompts", lambda f=folder, s=greedy: compare(f, chunk=10**6, samplings=s)),
                (f"{name}, greedy, chunks of 16", lambda f=folder, s=greedy: compare(f, chunk=16, samplings=s)),
                (f"{name}, mixed sampling", lambda f=folder, s=mixed: compare(f, chunk=32, samplings=s)),
            ]
        for name, case in cases:
            try:
                print(f"ok      {name}: {case()}", flush=True)
            except Exception as error:  # noqa: BLE001 - the other cases are of interest too
                failures += 1
                print(f"FAILED  {name}: {error}", flush=True)
                if not isinstance(error, AssertionError):
                    traceback.print_exc()
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
