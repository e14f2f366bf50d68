"""Finds tool calls in what a model writes: one format a file, each an incremental parser. Knows no HTTP and no token.

A plug-in (--tool-parser-plugin) subclasses `ToolParser`, or `FormatParser` for less work, and lists its classes by
name: `TOOL_PARSERS = {"mine": MyParser}`.
"""

from frontend.tool_parsers.base import FormatParser, ToolParser
from frontend.tool_parsers.registry import find_tool_parser

__all__ = ["FormatParser", "ToolParser", "find_tool_parser"]
