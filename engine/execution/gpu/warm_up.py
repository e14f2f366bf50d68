"""Runs each kind of step once before the engine is ready, so that no request waits for what happens on first use.

That is: Triton kernels compiled or loaded, in each variant that shapes choose; cuBLAS's choice of kernels by the number
of rows, and its workspaces; cuDNN's plans; kernels of torch, which CUDA loads lazily; memory asked of the device.
"""

from itertools import cycle

from engine.batch import Runner, ScheduledBatch
from engine.config import EnginePlan
from engine.execution.fake_steps import FILTERED, GREEDY, RANDOM, FakeRow, everything, fake_step
from protocol.sampling import Sampling

# Chunks that end beyond so many tokens take other kernels, and long ones behind long prefixes are cuDNN's
# (`engine.kernels.tuning`).
_SHORT_PREFIX, _LONG_PREFIX = 2048, 8192
_LEAST_CHUNK = 16
_DECODES = (0, 1, 3, 15, 40)  # Triton compiles a kernel anew for a number that is 1, or a multiple of 16
_NUM_LOGPROBS = 5


def warm_up(runner: Runner, plan: EnginePlan) -> None:
    """Leaves numbers in block 0 and in the first slots, so only before the first request."""
    for batch in warm_up_steps(plan):
        runner.launch(batch)
        runner.collect()


def warm_up_steps(plan: EnginePlan) -> list[ScheduledBatch]:
    """The largest first, whose memory serves the others too; rows that ask for little last."""
    longest, *shorter = _chunk_lengths(min(plan.max_num_batched_tokens, plan.max_model_len))
    special = everything(min(_NUM_LOGPROBS, plan.vocab_size))
    steps = [
        _step(plan, special, start=_LONG_PREFIX, length=longest, num_decodes=2, prompt_logprobs=_NUM_LOGPROBS),
        _step(plan, GREEDY, start=_SHORT_PREFIX, length=512),
    ]
    turns = zip(shorter, cycle(_DECODES), cycle((GREEDY, RANDOM, FILTERED)))
    steps += [_step(plan, sampling, length=length, num_decodes=count) for length, count, sampling in turns]
    steps += [_step(plan, GREEDY, length=1, num_decodes=count) for count in _powers_of_two(1, plan.max_num_seqs)]
    return steps


def _chunk_lengths(longest: int) -> list[int]:
    """The longest and every power of two below it, largest first."""
    return [longest, *reversed(_powers_of_two(_LEAST_CHUNK, longest))]


def _powers_of_two(least: int, beyond: int) -> list[int]:
    return [1 << bit for bit in range(beyond.bit_length()) if least <= 1 << bit < beyond]


def _step(
    plan: EnginePlan,
    sampling: Sampling,
    *,
    length: int,
    start: int = 0,
    num_decodes: int = 0,
    prompt_logprobs: int = -1,
) -> ScheduledBatch:
    """One chunk beside decode rows, as many of both as the plan lets into a step; from 0 where a row is not so long."""
    num_decodes = min(num_decodes, plan.max_num_seqs - 1, plan.max_num_batched_tokens - 1)
    length = min(length, plan.max_num_batched_tokens - num_decodes, plan.max_model_len)
    start = start if start + length <= plan.max_model_len else 0
    decodes = [FakeRow(start=min(_LEAST_CHUNK, plan.max_model_len - 1), sampling=sampling)] * num_decodes
    chunk = FakeRow(start=start, length=length, sampling=sampling, prompt_logprobs=prompt_logprobs)
    return fake_step(plan, decodes, [chunk])
