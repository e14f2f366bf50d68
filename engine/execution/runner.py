"""From what was asked to a runner that is ready: device, types, memory plan, weights, KV cache, first steps."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import torch

from engine.batch import Runner
from engine.config import EnginePlan
from engine.execution.device_memory import read_memory, wait_until_free
from engine.execution.plan import make_plan
from engine.execution.precision import Precision, choose_device, choose_precision
from engine.execution.torch_runner import TorchRunner
from engine.models.decoder import Decoder
from engine.models.shape import ModelShape
from engine.weights.load import Placement, load_weights, open_source
from engine.weights.source import TensorSource, check_tensors
from protocol.launch import EngineConfig

log = logging.getLogger("headrace.engine")

Report = Callable[[str, float], None]


def build_runner(config: EngineConfig, shape: ModelShape, report: Report) -> tuple[Runner, EnginePlan]:
    """`report` is told each phase's name and its seconds. Nothing is loaded before all of it was found to fit."""
    device = choose_device(config.device)
    if device.type == "cpu":
        torch.set_num_threads(config.num_threads or max(1, (os.cpu_count() or 2) - 1))
    precision = choose_precision(config.dtype, shape.dtype, device)
    source = open_source(config, shape)
    check_tensors(source, shape)
    plan, memory_plan = make_plan(config, shape, device, precision, read_memory(device))
    log.info("%s", memory_plan.line())
    if device.type == "cpu":
        return _cpu_runner(source, shape, plan, precision, report), plan
    with _phase("memory of the last engine core", report):
        wait_until_free(memory_plan, partial(read_memory, device))
    return _gpu_runner(source, shape, plan, precision, report), plan


def _cpu_runner(
    source: TensorSource, shape: ModelShape, plan: EnginePlan, precision: Precision, report: Report
) -> Runner:
    decoder = _load(source, shape, plan, precision, report)
    with _phase("KV cache", report):
        return TorchRunner(decoder, shape, plan, precision.cache)


def _gpu_runner(
    source: TensorSource, shape: ModelShape, plan: EnginePlan, precision: Precision, report: Report
) -> Runner:
    with ThreadPoolExecutor(2) as beside:  # reading the weights leaves Python's lock to them
        opened = [beside.submit(_import_kernels, report), beside.submit(_open_cublas, plan, precision, report)]
        decoder = _load(source, shape, plan, precision, report)
        for work in opened:
            work.result()
    from engine.execution.gpu.runner import GpuRunner
    from engine.execution.gpu.warm_up import warm_up

    with _phase("KV cache", report):
        runner = GpuRunner(decoder, shape, plan, precision.cache)
    with _phase("CUDA graphs", report):
        runner.capture_first()
    with _phase("first steps", report):
        warm_up(runner, plan)
    return runner


def _load(source: TensorSource, shape: ModelShape, plan: EnginePlan, precision: Precision, report: Report) -> Decoder:
    device = torch.device(plan.device)
    placement = Placement(device=device, rounded=precision.rounded, compute=precision.compute, packed=precision.packed)
    with _phase("weights", report):
        decoder = Decoder(shape, load_weights(source, shape, placement), max_positions=plan.max_model_len)
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # steps run on another stream than the copies
    return decoder


def _import_kernels(report: Report) -> None:
    with _phase("import triton", report):
        import engine.execution.gpu.runner  # noqa: F401 - for its time alone; a CPU needs none of it


def _open_cublas(plan: EnginePlan, precision: Precision, report: Report) -> None:
    """Its handle and first kernels: torch keeps a thread's handle for the next thread."""
    with _phase("cuBLAS", report):
        square = torch.ones(64, 64, dtype=precision.compute, device=plan.device)
        torch.mm(square, square)
        torch.cuda.synchronize(plan.device)


@contextmanager
def _phase(name: str, report: Report) -> Iterator[None]:
    started = time.perf_counter()
    yield
    report(name, time.perf_counter() - started)
