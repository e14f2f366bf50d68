"""Steps of fake rows: what a plan allows, and no trace in what follows."""

from pathlib import Path

import pytest

from engine.batch import ScheduledBatch
from engine.config import EnginePlan
from engine.execution.gpu.warm_up import warm_up, warm_up_steps
from tests.helpers.drive_runner import Driver, engine_config, start
from tests.helpers.small_models import save_model


def plan(*, max_model_len: int, max_num_seqs: int, max_num_batched_tokens: int) -> EnginePlan:
    return EnginePlan(
        device="cpu",
        dtype="float32",
        max_model_len=max_model_len,
        block_size=16,
        num_blocks=-(-max_model_len // 16),
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        vocab_size=100,
    )


@pytest.mark.parametrize(
    ("max_model_len", "max_num_seqs", "max_num_batched_tokens"),
    [(1, 1, 1), (8, 1, 64), (64, 4, 16), (40_960, 256, 2048), (131_072, 1024, 8192), (100, 64, 7)],
)
def test_warm_up_keeps_to_the_plan(max_model_len: int, max_num_seqs: int, max_num_batched_tokens: int) -> None:
    sizes = plan(max_model_len=max_model_len, max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens)
    steps = warm_up_steps(sizes)
    assert max(step.num_tokens for step in steps) >= min(max_num_batched_tokens, max_model_len)
    for step in steps:
        check(step, sizes)


def check(step: ScheduledBatch, sizes: EnginePlan) -> None:
    assert step.num_tokens <= sizes.max_num_batched_tokens
    assert len(step.setups) <= sizes.max_num_seqs
    assert step.block_columns.max() < sizes.max_blocks_per_row
    ends = [*(step.decode_positions + 1), *(step.chunk_starts + step.chunk_lengths)]
    assert max(ends) <= sizes.max_model_len
    assert [len(setup.tokens) for setup in step.setups] == ends


def test_steps_differ_in_what_kernels_are_chosen_by() -> None:
    steps = warm_up_steps(plan(max_model_len=131_072, max_num_seqs=256, max_num_batched_tokens=4096))
    assert {len(step.decode_slots) for step in steps} >= {0, 1, 3, 15, 40, 128}
    assert {int(step.chunk_lengths[0]) for step in steps} >= {1, 16, 64, 256, 1024, 2048, 4094}
    assert {int(step.chunk_starts[0]) for step in steps} == {0, 2048, 8192}
    assert any(step.chunk_prompt_logprobs[0] >= 0 for step in steps)


def test_a_warm_runner_answers_like_a_cold_one(tmp_path: Path) -> None:
    save_model("llama", tmp_path)

    def tokens(driver: Driver) -> list[list[int]]:
        rows = [driver.add(slot, range(5, 15 + slot)) for slot in range(4)]
        return driver.generate(rows, 6)

    cold, warm = (start(engine_config(tmp_path, max_num_batched_tokens=64)) for _ in range(2))
    warm_up(warm.runner, warm.plan)
    assert tokens(warm) == tokens(cold)
