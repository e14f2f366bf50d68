"""The real engine process with a model of air: `python -m tests.helpers.fake_model_engine`, EngineConfig on stdin.

Its tokens are a function of seed and position (`token_at`); HEADRACE_FAKE_STEP_MS in the environment slows its steps.
"""

import os
import time

from engine.batch import Runner, ScheduledBatch
from engine.config import EnginePlan
from engine.models.shape import ModelShape
from engine.process import Report, main
from protocol.launch import EngineConfig
from tests.helpers.fake_runner import FakeRunner


class SlowRunner(FakeRunner):
    """A forward pass of a fixed length."""

    step_s = float(os.environ.get("HEADRACE_FAKE_STEP_MS", "1")) / 1000

    def launch(self, batch: ScheduledBatch) -> None:
        """Take the time that a model would take."""
        time.sleep(self.step_s)
        super().launch(batch)


def build(config: EngineConfig, shape: ModelShape, report: Report) -> tuple[Runner, EnginePlan]:
    """As `engine.execution.runner.build_runner`, without torch."""
    max_model_len = min(config.max_model_len or 2048, shape.max_position_embeddings)
    plan = EnginePlan(
        device="cpu",
        dtype="float32",
        max_model_len=max_model_len,
        block_size=config.block_size,
        num_blocks=4096,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens or 2048,
        vocab_size=shape.vocab_size,
    )
    report("load fake model", 0.0)
    return SlowRunner(plan), plan


if __name__ == "__main__":
    main(build)
