"""The run directory: private, locked, gone afterwards; what dead servers left is removed, what lives is not."""

import stat
from pathlib import Path

import pytest

from frontend.supervisor.errors import StartError
from frontend.supervisor.run_dir import remove_stale, run_directory
from protocol.process import ExitStatus


def test_it_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    with run_directory(tmp_path) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        (path / "model").mkdir()
        (path / "model" / "config.json").write_text("{}")
    assert list(tmp_path.iterdir()) == []


def test_stale_ones_are_removed_and_living_ones_are_not(tmp_path: Path) -> None:
    stale = tmp_path / "headrace-dead"
    stale.mkdir()
    (stale / "lock").touch()
    with run_directory(tmp_path) as first:
        assert not stale.exists()
        with run_directory(tmp_path) as second:
            remove_stale(tmp_path)
            assert {first, second} == set(tmp_path.iterdir())


def test_what_is_not_ours_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "headrace-notes").mkdir()  # no lock: none of ours
    (tmp_path / "headrace-file").touch()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (tmp_path / "headrace-link").symlink_to(elsewhere)
    before = set(tmp_path.rglob("*"))
    remove_stale(tmp_path)
    assert set(tmp_path.rglob("*")) == before


def test_a_base_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="TMPDIR") as caught, run_directory(tmp_path / "missing"):
        pass
    assert caught.value.status == ExitStatus.CANNOT_START


def test_a_runtime_folder_with_a_long_name_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with run_directory() as path:
        assert path.parent != deep
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(StartError, match="too long a path"), run_directory():
        pass
