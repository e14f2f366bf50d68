"""The real engine process with odd moments: `python -m tests.helpers.odd_engine MODE`, EngineConfig on stdin.

loads=S        the model takes S seconds to load
imports-torch  torch is imported while it loads, as in the product, and then it loads for ever
breaks         the first step raises
long=S         each step takes S seconds
"""

import sys
import time

from engine.batch import Runner, ScheduledBatch
from engine.config import EnginePlan
from engine.models.shape import ModelShape
from engine.process import Report, main
from protocol.launch import EngineConfig
from tests.helpers.fake_runner import FakeRunner

BREAKS = "the device is on fire"


class OddRunner(FakeRunner):
    """Breaks, or takes its time."""

    def launch(self, batch: ScheduledBatch) -> None:
        """A step that is not like others."""
        if _mode == "breaks":
            raise RuntimeError(BREAKS)
        if _mode == "long":
            time.sleep(_seconds)
        super().launch(batch)


def build(config: EngineConfig, shape: ModelShape, report: Report) -> tuple[Runner, EnginePlan]:
    """As `engine.execution.runner.build_runner`."""
    if _mode == "imports-torch":
        report("begins", 0.0)
        import torch

        while torch.ones(1).item():
            torch.ones(300, 300) @ torch.ones(300, 300)
    if _mode == "loads":
        time.sleep(_seconds)
    plan = EnginePlan(
        device="cpu",
        dtype="float32",
        max_model_len=64,
        block_size=4,
        num_blocks=64,
        max_num_seqs=4,
        max_num_batched_tokens=64,
        vocab_size=shape.vocab_size,
    )
    return OddRunner(plan), plan


if __name__ == "__main__":
    _mode, _, _argument = sys.argv[1].partition("=")
    _seconds = float(_argument or 0)
    main(build)
