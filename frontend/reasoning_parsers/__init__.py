"""Splits what a model thinks from what it answers: one kind of model a file."""

from importlib import import_module

from frontend.parser_names import REASONING_PARSERS
from frontend.reasoning_parsers.base import ReasoningParser

__all__ = ["ReasoningParser", "find_reasoning_parser"]


def find_reasoning_parser(name: str) -> type[ReasoningParser]:
    """The parser of that name, which the settings have been checked for."""
    module, class_name = REASONING_PARSERS[name]
    found: type[ReasoningParser] = getattr(import_module(f"frontend.reasoning_parsers.{module}"), class_name)
    return found
