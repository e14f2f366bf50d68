"""The tool parsers by name: those of this package, imported when they are asked for, and those of a user's file."""

import importlib.util
import traceback
from importlib import import_module

from frontend.parser_names import TOOL_PARSERS
from frontend.tool_parsers.base import ToolParser


def find_tool_parser(name: str, plugin: str | None) -> type[ToolParser]:
    """The parser of that name. Raises `ValueError` where there is none, or where the plug-in cannot be imported."""
    added = {} if plugin is None else load_plugin(plugin)
    if name in added:
        return added[name]
    if name not in TOOL_PARSERS:
        known = ", ".join([*TOOL_PARSERS, *added])
        raise ValueError(f"--tool-call-parser: there is no parser {name}; there are {known}")
    module, class_name = TOOL_PARSERS[name]
    found: type[ToolParser] = getattr(import_module(f"frontend.tool_parsers.{module}"), class_name)
    return found


def load_plugin(path: str) -> dict[str, type[ToolParser]]:
    """`TOOL_PARSERS` of a Python file, which may replace parsers of this package. Raises `ValueError`."""
    spec = importlib.util.spec_from_file_location("headrace_tool_parser_plugin", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--tool-parser-plugin: {path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in is a program and may raise anything
        last_line = traceback.format_exception_only(error)[-1].strip()
        raise ValueError(f"--tool-parser-plugin: {path} cannot be imported: {last_line}") from error
    parsers = getattr(module, "TOOL_PARSERS", None)
    if not isinstance(parsers, dict) or not all(_is_parser(parser) for parser in parsers.values()):
        raise ValueError(f"--tool-parser-plugin: {path} must define TOOL_PARSERS, a dict of ToolParser classes by name")
    return parsers


def _is_parser(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, ToolParser)
