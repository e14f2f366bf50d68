"""A plug-in that cannot be used is named, with the last line of what it raised."""

from pathlib import Path

import pytest

from frontend.tool_parsers import find_tool_parser


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(7)", "SystemExit: 7"),
        ("x = 1", "TOOL_PARSERS"),
        ("TOOL_PARSERS = {'mine': int}", "TOOL_PARSERS"),
        ("TOOL_PARSERS = {}", "there is no parser mine"),
    ],
)
def test_a_plugin_that_cannot_be_used(tmp_path: Path, source: str, words: str) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(source)
    with pytest.raises(ValueError, match=words):
        find_tool_parser("mine", str(plugin))
