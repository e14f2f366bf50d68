"""Qwen3: the model opens its reasoning, unless the template has done so or, without `enable_thinking`, closed it.

See the chat templates of https://huggingface.co/Qwen/Qwen3-8B and https://huggingface.co/Qwen/Qwen3-4B-Thinking-2507.
"""

from frontend.reasoning_parsers.base import ReasoningParser


class Qwen3Parser(ReasoningParser):
    """An answer that does not begin with <think> has no reasoning."""

    thinks_unasked = False
