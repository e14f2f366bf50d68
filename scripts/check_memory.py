"""Holds a memory plan against a real GPU: starts a runner, drives the worst steps the plan allows, compares the peak.

usage: python scripts/check_memory.py MODEL_FOLDER [--set max_num_seqs=1024 ...]

MODEL_FOLDER holds a config.json; weights are random. Prints what torch held at most, and what the device lacks, beside
the plan; exit status 1 if either is more than was planned, or if a step ran out of memory.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from engine.batch import Runner, ScheduledBatch
from engine.config import EnginePlan
from engine.execution.device_memory import read_memory
from engine.execution.fake_steps import FILTERED, GREEDY, RANDOM, FakeRow, everything, fake_step
from engine.execution.memory_plan import CUDA, MemoryPlan, size
from engine.execution.plan import make_plan
from engine.execution.precision import choose_precision
from engine.execution.runner import build_runner
from engine.models.shape import ModelShape, read_shape
from protocol.launch import EngineConfig
from protocol.sampling import Sampling
from tests.helpers.drive_runner import engine_config

DEVICE = torch.device("cuda", 0)


def worst_steps(plan: EnginePlan, num_logprobs: int) -> dict[str, ScheduledBatch]:
    """By what they are worst for."""
    special, budget = everything(num_logprobs), plan.max_num_batched_tokens
    rows = min(plan.max_num_seqs, budget)
    longest = min(budget, plan.max_model_len)
    each = max(1, min(budget // rows, plan.max_model_len))
    whole = FakeRow(start=0, length=longest, sampling=special, prompt_logprobs=num_logprobs)
    at_end = FakeRow(start=plan.max_model_len - longest, length=longest, prompt_logprobs=num_logprobs)
    part = FakeRow(start=0, length=each, sampling=special, prompt_logprobs=num_logprobs)
    beside = FakeRow(start=0, length=min(budget - rows + 1, plan.max_model_len))
    return {
        "one prompt of a whole budget, scored": fake_step(plan, [], [whole]),
        "a whole budget at the end of the longest prompt, scored": fake_step(plan, [], [at_end]),
        "every slot, greedy": fake_step(plan, decode_rows(plan, rows, GREEDY), []),
        "every slot, random": fake_step(plan, decode_rows(plan, rows, RANDOM), []),
        "every slot, filtered": fake_step(plan, decode_rows(plan, rows, FILTERED), []),
        "every slot, flat and cut by top_p": fake_step(plan, decode_rows(plan, rows, flat(num_logprobs)), []),
        "every slot asks for everything": fake_step(plan, decode_rows(plan, rows, special), []),
        "every slot, a chunk each, all ask for everything": fake_step(plan, [], [part] * rows),
        "decode rows beside one long chunk": fake_step(plan, decode_rows(plan, rows - 1, special), [beside]),
    }


def flat(num_logprobs: int) -> Sampling:
    """Half the vocabulary is a candidate, and penalties and log-probabilities are wanted."""
    return Sampling(
        seed=0, max_tokens=1, temperature=2.0, top_p=0.5, frequency_penalty=0.1, logprobs=num_logprobs, ignore_eos=True
    )


def decode_rows(plan: EnginePlan, count: int, sampling: Sampling) -> list[FakeRow]:
    """One as long as a row can be; the others share what the cache holds beside it."""
    share = (plan.num_blocks * plan.block_size - plan.max_model_len) // max(1, count - 1)
    starts = [plan.max_model_len - 1, *[max(0, min(share, plan.max_model_len) - 1)] * (count - 1)]
    return [FakeRow(start=start, sampling=sampling) for start in starts[:count]]


def drive(runner: Runner, steps: dict[str, ScheduledBatch]) -> None:
    """Each twice in a row: with run-ahead one step's results are still held when the next one is launched."""
    for name, batch in steps.items():
        for _ in range(1 + runner.depth):
            runner.launch(batch)
        for _ in range(1 + runner.depth):
            runner.collect()
        print(f"{size(torch.cuda.max_memory_reserved(DEVICE)):>9} held by torch after: {name}", flush=True)


def compare(plan: MemoryPlan, free_before: int) -> int:
    """0: it held."""
    within_torch = plan.needed - plan.parts[CUDA]
    allocated, reserved = torch.cuda.max_memory_allocated(DEVICE), torch.cuda.max_memory_reserved(DEVICE)
    gone = free_before - read_memory(DEVICE).free
    print(plan.line())
    print(f"torch, at most: allocated {size(allocated)}, held {size(reserved)}; planned {size(within_torch)}")
    print(f"gone from the device since it was opened: {size(gone)}; planned with CUDA's part {size(plan.needed)}")
    if reserved > within_torch or gone > plan.needed:
        print(f"over the plan by {size(max(reserved - within_torch, gone - plan.needed))}")
        return 1
    return 0


def plans(config: EngineConfig, shape: ModelShape) -> MemoryPlan:
    """As `build_runner` makes them: they depend on sizes alone."""
    return make_plan(config, shape, DEVICE, choose_precision(config.dtype, shape.dtype, DEVICE), read_memory(DEVICE))[1]


def main() -> int:
    """One model, one set of settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a field of EngineConfig")
    args = parser.parse_args()
    chosen = {name: json.loads(value) for name, value in (pair.split("=", 1) for pair in args.set)}
    settings = {"device": "cuda", "dtype": "auto", "load_format": "dummy", "kv_cache_memory_bytes": None}
    config = engine_config(args.model, **(settings | {"max_num_seqs": 256} | chosen))
    shape = read_shape(args.model)
    free_before = read_memory(DEVICE).free
    runner, plan = build_runner(config, shape, lambda phase, seconds: print(f"{seconds:8.2f} s {phase}", flush=True))
    try:
        drive(runner, worst_steps(plan, config.max_logprobs))
        while runner.prepare():
            pass
        print(f"{size(torch.cuda.max_memory_reserved(DEVICE)):>9} held by torch after: all graphs")
    except torch.OutOfMemoryError as error:
        print(error)
        print(plans(config, shape).line())
        return 1
    return compare(plans(config, shape), free_before)


if __name__ == "__main__":
    sys.exit(main())
