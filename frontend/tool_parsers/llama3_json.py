"""Llama 3.1, 3.2 and 4 with JSON: the call is a bare object at the beginning of a line, or after <|python_tag|>.

The format is described in https://llama.meta.com/docs/model-cards-and-prompt-formats/llama3_1/ under "JSON based tool
calling". Several calls are divided by semicolons (https://docs.vllm.ai/en/latest/features/tool_calling.html). As
nothing marks an object as a call but its keys, only one that names a tool of the request is.
"""

from frontend.char_parser import Malformed, Script
from frontend.tool_parsers.json_calls import JsonCallParser

_TAG = "<|python_tag|>"


class Llama3JsonParser(JsonCallParser):
    """`{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}`"""

    begins = ("{", _TAG)
    closes = (";",)
    special_tokens = (_TAG,)
    only_known_names = True

    def calls(self, marker: str) -> Script[None]:
        """An object whose brace may have been read already."""
        if marker == _TAG:
            yield from self.read_space()
            yield from self.expect("{")
        elif not self.out.at_line_start:
            raise Malformed
        yield from self.json_members()
