"""ARCHITECTURE.md holds one tree with a line for every product file, and no line for a file that is not there."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("headrace.py", "frontend/", "engine/", "protocol/", "scripts/", "deploy/", ".ci/")
ENTRY = re.compile(r"(?P<indent> *)(?P<name>\S+)(?:\s+(?P<text>\S.*))?")


def test_every_product_file_has_its_line() -> None:
    described = tree()
    # A package's own line stands for its __init__.py.
    missing = [path for path in product_files() if path.removesuffix("__init__.py") not in described]
    assert missing == [], f"add a line for each to the tree in ARCHITECTURE.md: {', '.join(missing)}"


def test_every_line_names_something_that_exists() -> None:
    gone = [path for path in tree() if not (ROOT / path).exists()]
    assert gone == [], f"take these out of the tree in ARCHITECTURE.md: {', '.join(gone)}"


def test_every_line_says_what_it_is() -> None:
    bare = [path for path, text in tree().items() if not text]
    assert bare == [], f"say in ARCHITECTURE.md what these are: {', '.join(bare)}"


def tree() -> dict[str, str]:
    """Path (of a folder: with a closing slash) -> what its line says. The tree is the code block with headrace.py."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    block = next(block for block in re.findall(r"```\w*\n(.*?)```", page, re.DOTALL) if "\nheadrace.py" in "\n" + block)
    described: dict[str, str] = {}
    folders: list[tuple[int, str]] = []
    for entry in filter(None, map(ENTRY.fullmatch, block.splitlines())):
        while folders and folders[-1][0] >= len(entry["indent"]):
            folders.pop()
        path = (folders[-1][1] if folders else "") + entry["name"]
        described[path] = entry["text"] or ""
        if path.endswith("/"):
            folders.append((len(entry["indent"]), path))
    return described


def product_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", *PRODUCT], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()
