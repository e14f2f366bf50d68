"""The public face of Headrace: `from headrace import LLM, SamplingParams`, and the command `headrace`."""

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # they come from __getattr__: the command does not pay for them
    from frontend.llm import LLM, SamplingParams

__version__ = "0.1.0"
__all__ = ["LLM", "SamplingParams", "__version__", "main"]


def main() -> int:
    """The console script. Imports late: what `headrace --help` does not need is not paid for."""
    from frontend.cli import main as command

    return command(sys.argv[1:])


def __getattr__(name: str) -> object:
    if name in ("LLM", "SamplingParams"):
        return getattr(importlib.import_module("frontend.llm"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    sys.exit(main())
