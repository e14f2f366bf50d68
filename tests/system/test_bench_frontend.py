"""The benchmark of the front end, in its short form: real processes, and every answer has the tokens it asked for."""

import json
import subprocess
import sys
from pathlib import Path

from tests.helpers.server_process import ROOT


def test_every_stream_gets_its_tokens(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "scripts.bench_frontend", "--smoke", "--json", str(report)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    (row,) = json.loads(report.read_text())["rows"]
    assert row["answers"]["wrong"] == 0
    assert row["answers"]["ended"] >= 4 * row["streams"]  # each of four loads: one answer of each stream at least
    assert set(row["health"]) == {"/livez", "/readyz", "/metrics", "/load"}
