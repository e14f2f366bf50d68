"""The run directory: private to one server, locked while that server lives, gone after it.

Whatever dies without cleaning leaves a directory whose lock is free; the next server removes it.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from frontend.supervisor.errors import StartError
from protocol.address import engine_address
from protocol.process import ExitStatus

_PREFIX = "headrace-"
_LOCK = "lock"


@contextlib.contextmanager
def run_directory(base: Path | None = None) -> Iterator[Path]:
    """A new directory of mode 0700, removed at the end. Stale ones beside it are removed first."""
    base = base or _base()
    remove_stale(base)
    try:
        path, lock = _make(base)
    except OSError as error:
        raise StartError(
            ExitStatus.CANNOT_START,
            f"no run directory can be made in {base} ({error.strerror}); set TMPDIR to a folder with space",
        ) from None
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def remove_stale(base: Path) -> None:
    """Remove our own run directories in `base` that no living server has locked."""
    for path in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another server may be cleaning too
            if _is_stale(path):
                shutil.rmtree(path, ignore_errors=True)


def _base() -> Path:
    """The first usable place for it. Sockets lie in it, whose paths have to be short."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")  # noqa: TID251 - the login session's setting, not one of ours
    if os.path.isabs(runtime) and os.access(runtime, os.W_OK | os.X_OK) and _is_short(Path(runtime)):
        return Path(runtime)
    base = Path(tempfile.gettempdir())
    if not _is_short(base):
        raise StartError(
            ExitStatus.WRONG_SETTINGS, f"sockets in {base} would have too long a path; set TMPDIR to a shorter one"
        )
    return base


def _is_short(base: Path) -> bool:
    try:
        engine_address(base / f"{_PREFIX}12345678", rank=99, epoch=0)
    except ValueError:
        return False
    return True


def _make(base: Path) -> tuple[Path, int]:
    """Lock first, then give it the name that others look for: they never see one that is not locked yet."""
    unlocked = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=base))
    lock = os.open(unlocked / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    path = unlocked.with_name(unlocked.name.removeprefix("."))
    unlocked.rename(path)
    return path, lock


def _is_stale(path: Path) -> bool:
    found = path.lstat()
    if found.st_uid != os.getuid() or not path.is_dir() or path.is_symlink():
        return False
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
