"""ARCHITECTURE.md holds the tree that `scripts/tree.py` makes: every product file, and what it says of itself."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tree() -> ModuleType:
    spec = importlib.util.spec_from_file_location("headrace_tree", ROOT / "scripts" / "tree.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_map_is_the_tree(tree: ModuleType) -> None:
    found = tree.BLOCK.search((ROOT / "ARCHITECTURE.md").read_text())
    assert found is not None and found[0] == tree.tree(), "run scripts/tree.py --write"


def test_every_file_says_what_it_is(tree: ModuleType) -> None:
    bare = [line.strip() for line in tree.tree().splitlines() if len(line.split()) < 2 and not line.endswith("/")]
    assert bare == [], "begin each of these with one line that says what it is"
