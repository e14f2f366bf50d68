"""Compares the kernels for what rows ask of the sampler with their twins on a GPU, and its sampler with the CPU's.

usage: python scripts/check_gpu_sampling.py     prints one line a case, exit status 1 if one failed

Logits of both types and of real and odd vocabularies; outputs are poisoned before. The last lines are times.
"""

import sys
import time
import traceback
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from engine.batch import Int64s
from engine.execution.gpu.sampler import ExtraWork
from engine.kernels import logit_rules, penalties_triton
from engine.kernels.logprobs_triton import logprob_scratch, logprobs_into, logprobs_into_twin, unpacked
from engine.kernels.penalties import penalize
from engine.kernels.penalties_triton import PenaltyTables
from engine.kernels.sampling_triton import sample
from tests.helpers.both_samplers import BothSamplers, check_logprobs
from tests.helpers.rule_tables import HISTORY, SLOTS, some_tables

SIZES = [
    (torch.bfloat16, 151_936),
    (torch.float32, 151_936),
    (torch.bfloat16, 128_256),
    (torch.float32, 50_257),
    (torch.bfloat16, 49_153),
    (torch.float32, 333),
]
ROWS = 48
POISON = 123.0


def check_rules(device: torch.device, dtype: torch.dtype, vocab: int) -> str:
    """Bit for bit."""
    tables = some_tables(vocab, device)
    logits = torch.randn(ROWS, vocab, device=device).to(dtype)
    logits[3, 5], logits[3, 6], logits[3, 7] = torch.nan, torch.inf, -torch.inf
    history = torch.randint(2, (SLOTS, HISTORY), dtype=torch.int32, device=device)
    rows = torch.randperm(ROWS, device=device).int()
    slots = torch.randint(-1, SLOTS, (ROWS,), device=device).int()
    positions = torch.randint(4, HISTORY, (ROWS,), device=device).int()
    found, wanted = (torch.full((ROWS, vocab), POISON, device=device) for _ in range(2))
    logit_rules.copy_masked(logits, rows, slots, positions, tables, found)
    logit_rules.add_biases(slots, tables, found)
    logit_rules.ban_bad_words(slots, positions, history, tables, found)
    logit_rules.copy_masked_twin(logits, rows, slots, positions, tables, wanted)
    logit_rules.add_biases_twin(slots, tables, wanted)
    logit_rules.ban_bad_words_twin(slots, positions, history, tables, wanted)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    return f"{int((found == -torch.inf).sum())} bans"


def check_penalties(device: torch.device, vocab: int, width: int) -> str:
    """Bit for bit, and the counts are zero again."""
    tables = PenaltyTables(
        prompt_lens=torch.randint(1, width, (ROWS,), device=device).int(),
        repetition=torch.rand(ROWS, device=device) + 0.5,
        presence=torch.rand(ROWS, device=device) - 0.5,
        frequency=torch.rand(ROWS, device=device) - 0.5,
    )
    history = torch.randint(vocab, (ROWS, width), device=device).int()
    history[: ROWS // 2] %= 40  # some say the same again and again
    slots, positions = torch.randperm(ROWS, device=device).int(), torch.randint(1, width, (ROWS,), device=device).int()
    logits = torch.randn(ROWS, vocab, device=device) * 5
    found, counts = logits.clone(), torch.zeros(ROWS, vocab, dtype=torch.int32, device=device)
    penalties_triton.penalize(slots, positions, history, tables, counts, found)
    slot = slots.long()
    numbers = {name: getattr(tables, name)[slot] for name in ("repetition", "presence", "frequency")}
    wanted = penalize(logits.clone(), history[slot], positions, tables.prompt_lens[slot], **numbers)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    if counts.any():
        raise AssertionError("the counts are not zero afterwards")
    return f"{int((found != logits).sum())} logits changed"


def check_scores(device: torch.device, dtype: torch.dtype, vocab: int, num_top: int) -> str:
    logits = (torch.randn(ROWS, vocab, device=device) * 4).to(dtype)
    logits[1] = logits[1].round()  # many equals
    rows = torch.randperm(ROWS, device=device).int()
    tokens = torch.randint(vocab, (ROWS, 2), device=device).int()
    tokens[: ROWS // 2, 0] = logits[: ROWS // 2].argmax(-1).int()
    packed = [torch.full((ROWS, 2 + 2 * num_top), -9, dtype=torch.int32, device=device) for _ in range(2)]
    logprobs_into(packed[0], logits, rows, tokens[:, 0], num_top, logprob_scratch(ROWS, vocab, device))
    logprobs_into_twin(packed[1], logits, rows, tokens[:, 0], num_top)
    found, wanted = map(unpacked, packed)
    torch.testing.assert_close(found.logprobs, wanted.logprobs, rtol=0, atol=5e-5)
    torch.testing.assert_close(found.top_logprobs, wanted.top_logprobs, rtol=0, atol=5e-5)
    torch.testing.assert_close(found.ranks, wanted.ranks, rtol=0, atol=0)
    values = logits[rows.long()].gather(1, found.top_ids.long())
    torch.testing.assert_close(values, logits[rows.long()].topk(num_top).values, rtol=0, atol=0)
    return f"largest error {float((found.logprobs - wanted.logprobs).abs().max()):.1e}"


def check_sampler(device: torch.device, dtype: torch.dtype, vocab: int) -> str:
    """Random rows of all kinds; a tie that float32 cannot tell may fall either way."""
    samplers = BothSamplers(device, vocab, vocab_size=vocab, num_rows=ROWS)
    equal = total = 0
    for turn in range(4):
        logits = (torch.randn(ROWS, vocab, device=device) * 3).to(dtype)
        drawn = samplers.draw(logits, samplers.rng.permutation(ROWS))
        kept = ~drawn.wanted.failed
        if drawn.tokens[:, 1].bool().tolist() != drawn.wanted.failed.tolist():
            raise AssertionError("other rows failed than on the CPU")
        same = drawn.tokens[kept, 0] == drawn.wanted.tokens[kept]
        equal, total = equal + int(same.sum()), total + len(same)
        if same.all():
            check_logprobs(drawn.logprobs, drawn.wanted, may_tie=dtype != torch.float32)
        samplers.install([samplers.new_setup(slot) for slot in range(turn, ROWS, 4)])
    if equal < total - total // 100:
        raise AssertionError(f"only {equal} of {total} tokens are equal")
    return f"{equal} of {total} tokens are equal"


def check_nothing_waits(device: torch.device, vocab: int) -> str:
    """torch raises at whatever would wait for the device: from joining to the log-probabilities' way out."""
    samplers = BothSamplers(device, 1, vocab_size=vocab, num_rows=ROWS)
    logits = torch.randn(ROWS, vocab, device=device).bfloat16()
    slots = np.arange(ROWS, dtype=np.int64)
    samplers.draw(logits, slots)  # compiled from here on
    out = torch.zeros(ROWS, 2, dtype=torch.int32, device=device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        samplers.staging.begin()
        joining = samplers.gpu.join(samplers.setups, samplers.staging)
        samplers.staging.send()
        samplers.gpu.install(joining)
        samplers.gpu.do(asked(samplers, slots), logits, out)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "nothing does"


def asked(samplers: BothSamplers, slots: Int64s) -> ExtraWork:
    samplers.staging.begin()
    extra = samplers.gpu.extra_work(slots, np.full_like(slots, 20), samplers.staging)
    samplers.staging.send()
    assert extra is not None
    return extra


def time_rows(device: torch.device, vocab: int, num_rows: int) -> str:
    """What rows of all kinds cost beyond a plain draw, on the GPU and on the CPU, in microseconds."""
    samplers = BothSamplers(device, 2, vocab_size=vocab, num_rows=num_rows)
    logits = torch.randn(num_rows, vocab, device=device).bfloat16()
    slots = np.arange(num_rows, dtype=np.int64)
    out = torch.zeros(num_rows, 2, dtype=torch.int32, device=device)
    put = torch.arange(num_rows, dtype=torch.int32, device=device)
    plain = time_of(lambda: sample(logits, put, put, samplers.gpu.parameters))
    work = asked(samplers, slots)
    extra = time_of(lambda: samplers.gpu.do(work, logits, out))
    return "plain draw GPU {:.0f} CPU {:.0f}, beyond it GPU {:.0f} CPU {:.0f} us".format(*plain, *extra)


def time_of(work: Callable[[], object], turns: int = 20) -> tuple[float, float]:
    """Microseconds on the GPU, and until the CPU has launched it, a turn."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(20_000_000)  # so that the CPU is ahead and the GPU never waits for it
    first.record()
    started = time.perf_counter()
    for _ in range(turns):
        work()
    launched = time.perf_counter() - started
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / turns * 1e3, launched / turns * 1e6


def cases(device: torch.device) -> list[tuple[str, Callable[[], str]]]:
    listed: list[tuple[str, Callable[[], str]]] = []
    for dtype, vocab in SIZES:
        name = f"{str(dtype).removeprefix('torch.')} x {vocab}"
        listed.append((f"rules, {name}", partial(check_rules, device, dtype, vocab)))
        listed += [
            (f"log-probabilities with {top}, {name}", partial(check_scores, device, dtype, vocab, top))
            for top in (0, 1, 5, 20, 33, 128, 200)
        ]
        listed.append((f"samplers, {name}", partial(check_sampler, device, dtype, vocab)))
    listed += [
        (f"penalties, {vocab}, histories of {width}", partial(check_penalties, device, vocab, width))
        for vocab in (151_936, 333)
        for width in (30, 1024, 20_000)
    ]
    listed.append(("what waits for the device", partial(check_nothing_waits, device, 151_936)))
    listed += [(f"time of {num} rows", partial(time_rows, device, 151_936, num)) for num in (8, 64, 256)]
    return listed


def main() -> int:
    """Every case; a failure does not stop the others."""
    failures = 0
    torch.manual_seed(0)
    with torch.inference_mode():
        for name, case in cases(torch.device("cuda")):
            try:
                print(f"ok      {name}: {case()}", flush=True)
            except Exception as error:  # noqa: BLE001 - the other cases are of interest too
                failures += 1
                print(f"FAILED  {name}: {str(error).strip().splitlines()[:3]}", flush=True)
                if not isinstance(error, AssertionError):
                    traceback.print_exc()
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
