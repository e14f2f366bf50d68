"""From what was asked to a runner that is ready: device, types, weights, plan, KV cache."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from engine.batch import Runner
from engine.config import EnginePlan
from engine.execution.plan import choose_max_model_len, make_plan
from engine.execution.precision import choose_device, choose_precision
from engine.execution.torch_runner import TorchRunner
from engine.models.decoder import Decoder
from engine.models.shape import ModelShape
from engine.weights.load import Placement, load_weights, open_source
from protocol.launch import EngineConfig

Report = Callable[[str, float], None]


def build_runner(config: EngineConfig, shape: ModelShape, report: Report) -> tuple[Runner, EnginePlan]:
    """`report` is told each phase's name and its seconds."""
    device = choose_device(config.device)
    if device.type == "cpu":
        torch.set_num_threads(config.num_threads or max(1, (os.cpu_count() or 2) - 1))
    precision = choose_precision(config.dtype, shape.dtype, device)
    max_model_len = choose_max_model_len(config, shape)
    with _phase("weights", report):
        placement = Placement(
            device=device, rounded=precision.rounded, compute=precision.compute, packed=precision.packed
        )
        weights = load_weights(open_source(config, shape), shape, placement)
    with _phase("KV cache", report):
        plan = make_plan(config, shape, device, precision)
        decoder = Decoder(shape, weights, max_positions=max_model_len)
        if device.type == "cpu":
            return TorchRunner(decoder, shape, plan, precision.cache), plan
    from engine.execution.gpu.runner import GpuRunner  # here: importing Triton takes time, and a CPU needs none

    with _phase("CUDA graphs", report):
        runner = GpuRunner(decoder, shape, plan, precision.cache)
        runner.capture_first()
    return runner, plan


@contextmanager
def _phase(name: str, report: Report) -> Iterator[None]:
    started = time.perf_counter()
    yield
    report(name, time.perf_counter() - started)
