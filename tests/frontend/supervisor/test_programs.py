"""What an engine core finds in its environment."""

import json
import os
import sys
from pathlib import Path

import pytest

from frontend.settings import Settings
from frontend.supervisor.programs import EnginePremises, spawn_engine_core
from protocol.launch import ModelFiles
from protocol.scoreboard import Scoreboard

TELL = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"


def environment(folder: Path) -> dict[str, str]:
    """Of a child that is started where an engine core would be."""
    told, run_dir = folder / "told.json", folder / "run"
    board = Scoreboard.create(num_api_servers=1, num_engines=1)
    premises = EnginePremises(
        settings=Settings(model="m"),
        run_dir=run_dir,
        scoreboard=board,
        engine_command=[sys.executable, "-c", TELL, str(told)],
    )
    child, _ = spawn_engine_core(premises, ModelFiles(name="m", config_dir="", weights=""))
    assert child.reap() == 0
    os.close(board.fd)
    found: dict[str, str] = json.loads(told.read_text())
    return found


def test_compiled_kernels_are_kept_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    assert environment(tmp_path)["TRITON_CACHE_DIR"] == str(tmp_path / "cache" / "headrace" / "triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", "/chosen")
    assert environment(tmp_path)["TRITON_CACHE_DIR"] == "/chosen"


def test_where_nothing_can_be_kept_kernels_last_for_this_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("TRITON_CACHE_DIR", raising=False)
    assert environment(tmp_path)["TRITON_CACHE_DIR"] == str(tmp_path / "run" / "triton")
