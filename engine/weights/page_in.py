"""Brings weights into the page cache while nothing else needs the disk. No torch: it is what we wait for meanwhile."""

import contextlib
import os
from pathlib import Path

PIECE_BYTES = 16 * 2**20


def page_in(weights: Path) -> None:
    """A GGUF file, or the safetensors files of a folder. What cannot be read is left to those who will say so."""
    files = [weights] if weights.is_file() else sorted(weights.glob("*.safetensors"))
    for path in files:
        with contextlib.suppress(OSError):
            _page_in_file(path)


def _page_in_file(path: Path) -> None:
    buffer = bytearray(PIECE_BYTES)
    with path.open("rb", buffering=0) as file:
        for offset in range(0, path.stat().st_size, PIECE_BYTES):
            if not _is_there(file.fileno(), offset):
                # posix_fadvise would ask for no more than one read-ahead window a call.
                os.preadv(file.fileno(), [buffer], offset)


def _is_there(fd: int, offset: int) -> bool:
    """Whether a piece begins in the page cache: what was read before was mostly read whole."""
    try:
        return os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except OSError:  # EAGAIN: not there; EOPNOTSUPP: this file system cannot say
        return False
