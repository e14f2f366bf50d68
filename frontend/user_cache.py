"""The folder in which we keep between starts what can be made again."""

import os
from pathlib import Path


def user_cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or ""  # noqa: TID251 - the desktop's setting, not one of ours
    # The XDG specification says that a relative path is to be ignored.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return root / "headrace"
