"""Writes the tree in ARCHITECTURE.md: every product file with the first line of what it says of itself.

usage: python scripts/tree.py [--write]     without --write it prints the tree
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("headrace.py", "frontend", "engine", "protocol", "scripts", "deploy", ".ci")
DATA = {"workloads.json": "The named workloads: requests, least and most input and output tokens, how to sample."}
BLOCK = re.compile(r"(?<=```text tree\n).*?(?=```)", re.DOTALL)


def line_of(path: Path) -> str:
    """What a file says of itself: a module's docstring, a script's first comment; its first line."""
    if path.name in DATA:
        return DATA[path.name]
    text = path.read_text()
    if path.suffix == ".py":
        said = ast.get_docstring(ast.parse(text)) or ""
    else:
        said = "\n".join(line.removeprefix("# ") for line in text.splitlines() if re.match(r"# ", line))
    return said.split("\n")[0]


def tree() -> str:
    """The listing: folders end in a slash and carry their package's line, files are indented below them."""
    listed = subprocess.run(["git", "ls-files", *PRODUCT], cwd=ROOT, capture_output=True, text=True, check=True)
    lines: list[str] = []
    seen: set[Path] = set()
    for path in sorted(map(Path, listed.stdout.split()), key=lambda path: (path.parent.parts, path.name)):
        for folder in reversed(path.parents[:-1]):
            if folder not in seen:
                seen.add(folder)
                package = ROOT / folder / "__init__.py"
                lines.append(_entry(folder, f"{folder.name}/", line_of(package) if package.exists() else ""))
        if path.name != "__init__.py":
            lines.append(_entry(path, path.name, line_of(ROOT / path)))
    return "\n".join(lines) + "\n"


def _entry(path: Path, name: str, text: str) -> str:
    indent = "  " * (len(path.parts) - 1)
    return f"{indent + name:<28} {text}".rstrip()


def main() -> None:
    """Print the tree, or put it where ARCHITECTURE.md has its block."""
    if "--write" not in sys.argv:
        sys.stdout.write(tree())
        return
    page = ROOT / "ARCHITECTURE.md"
    page.write_text(BLOCK.sub(lambda _: tree(), page.read_text()))


if __name__ == "__main__":
    main()
