"""DeepSeek R1 and its distillations: the answer begins amid the reasoning, since the template has opened it.

See the chat template of https://huggingface.co/deepseek-ai/DeepSeek-R1. Where the template has closed it, as that of
V3.1 does without `thinking`, there is none.
"""

from frontend.reasoning_parsers.base import ReasoningParser


class DeepSeekR1Parser(ReasoningParser):
    """What has no end is reasoning to the last character."""

    thinks_unasked = True
