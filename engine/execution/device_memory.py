"""How much memory a device has and how much of it is free, and the wait for what a process that died gives back."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import torch

from engine.execution.memory_plan import DeviceMemory, MemoryPlan, size
from engine.models.config_json import ModelError

# A driver takes back the memory of a killed process within a second or two; an engine core may be started before that.
WAIT_S = 10.0
_POLL_S = 0.05
# Of the container that we are in: control groups of version 2, then 1.
_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def read_memory(device: torch.device) -> DeviceMemory:
    """Opens the device if that was not done yet."""
    if device.type == "cpu":
        machine = psutil.virtual_memory()
        total = min(machine.total, container_limit() or machine.total)
        return DeviceMemory(total=total, free=min(machine.available, total))
    free, total = torch.cuda.mem_get_info(device)
    return DeviceMemory(total=total, free=free)


def container_limit(files: Sequence[Path] = _CONTAINER_LIMITS) -> int | None:
    """In bytes; None: there is none."""
    for path in files:
        with contextlib.suppress(OSError, ValueError):  # not this version; "max"
            return int(path.read_text())
    return None


def wait_until_free(
    plan: MemoryPlan,
    read: Callable[[], DeviceMemory],
    *,
    wait_s: float = WAIT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once the plan's memory is there; `ModelError` if it does not come back in time."""
    deadline = time.monotonic() + wait_s
    while (free := read().free) < plan.needed_free:
        if time.monotonic() >= deadline:
            raise ModelError(
                f"{plan.device} has {size(free)} free and stayed so for {wait_s:g} s, but the memory plan needs"
                f" {size(plan.needed_free)} ({plan.limit_name}); end what else uses the device, or lower"
                " --gpu-memory-utilization or --kv-cache-memory-bytes"
            )
        sleep(_POLL_S)
