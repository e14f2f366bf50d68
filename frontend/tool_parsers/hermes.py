"""Hermes 2 Pro and 3, Qwen2.5, Qwen3: each call is a JSON object between <tool_call> and </tool_call>.

The format is described in https://github.com/NousResearch/Hermes-Function-Calling and in the chat template of
https://huggingface.co/Qwen/Qwen3-8B. Models leave out the closing tag at times; to Hermes both are special tokens.
"""

from frontend.char_parser import Script
from frontend.tool_parsers.json_calls import JsonCallParser


class HermesParser(JsonCallParser):
    """`<tool_call>{"name": "f", "arguments": {}}</tool_call>`"""

    begins = ("<tool_call>",)
    closes = ("</tool_call>",)
    special_tokens = begins + closes

    def calls(self, marker: str) -> Script[None]:
        """An object, or a list of them."""
        yield from self.json_calls()
