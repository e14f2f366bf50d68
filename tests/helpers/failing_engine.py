"""The real engine process whose model never comes: `python -m tests.helpers.failing_engine {loading,refuses,exits}`."""

import os
import sys
import threading

from engine.batch import Runner
from engine.config import EnginePlan
from engine.models.shape import ModelError, ModelShape
from engine.process import Report, main
from protocol.launch import EngineConfig

EXIT_STATUS = 7
REFUSAL = "model.safetensors lacks the tensor lm_head.weight"


def build(config: EngineConfig, shape: ModelShape, report: Report) -> tuple[Runner, EnginePlan]:
    """Load for ever, say why not, or die without a word."""
    mode = sys.argv[1]
    if mode == "exits":
        os._exit(EXIT_STATUS)
    if mode == "loading":
        threading.Event().wait()
    raise ModelError(REFUSAL)


if __name__ == "__main__":
    main(build)
