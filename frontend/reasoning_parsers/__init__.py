"""Splits what a model thinks from what it answers: one kind of model a file."""

from frontend.reasoning_parsers.base import ReasoningParser
from frontend.reasoning_parsers.deepseek_r1 import DeepSeekR1Parser
from frontend.reasoning_parsers.qwen3 import Qwen3Parser

REASONING_PARSERS: dict[str, type[ReasoningParser]] = {"deepseek_r1": DeepSeekR1Parser, "qwen3": Qwen3Parser}

__all__ = ["REASONING_PARSERS", "ReasoningParser"]
