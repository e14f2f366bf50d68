"""What can begin before torch is imported, in threads that hardly need Python: paging in weights, opening the GPU."""

import ctypes
import threading
import time
from collections.abc import Callable
from pathlib import Path

from engine.weights.page_in import page_in
from protocol.launch import EngineConfig


def begin(config: EngineConfig, report: Callable[[str, float], None]) -> None:
    """Start them; nobody needs to wait for them. `report` is told a phase's name and its seconds."""
    if config.load_format != "dummy":
        _start("page in", lambda: page_in(Path(config.model.weights)))
    if config.device != "cpu":
        _start("open GPU", lambda: _open_gpu(report))


def _start(name: str, work: Callable[[], None]) -> None:
    threading.Thread(target=work, name=name, daemon=True).start()


def _open_gpu(report: Callable[[str, float], None]) -> None:
    """Make the first device's primary context, which is the one that torch uses: it is there when torch wants it.

    Whatever fails here fails again for torch, which says it better.
    """
    started = time.monotonic()
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return
    device, context = ctypes.c_int(), ctypes.c_void_p()
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(device), 0)
        or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    )
    if not failed:
        report("CUDA context", time.monotonic() - started)
