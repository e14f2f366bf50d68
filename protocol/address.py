"""Where an epoch of an engine core is found. Apart from the sockets, so that a supervisor needs no ZeroMQ."""

import os
from pathlib import Path

MAX_IPC_PATH_BYTES = 107  # sun_path of unix(7), less the final zero


def engine_address(run_dir: Path, rank: int, epoch: int) -> str:
    """The ipc address of one epoch of one engine core. Raises ValueError when the run directory's name is too long."""
    path = run_dir / f"engine-{rank}-{epoch:016x}.sock"
    if len(os.fsencode(path)) > MAX_IPC_PATH_BYTES:
        raise ValueError(f"{path} has over {MAX_IPC_PATH_BYTES} bytes; set TMPDIR or XDG_RUNTIME_DIR to a shorter one")
    return f"ipc://{path}"
