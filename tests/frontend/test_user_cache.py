"""Where we keep what can be made again."""

from pathlib import Path

import pytest

from frontend.user_cache import user_cache_dir


def test_the_cache_folder_is_the_desktops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / "headrace"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_cache_dir() == Path.home() / ".cache" / "headrace"
