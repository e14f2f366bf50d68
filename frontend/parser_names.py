"""The parsers of tool calls and of reasoning that come with Headrace, by name; imported only where they are needed."""

# name -> module within its package, and the class there
TOOL_PARSERS = {
    "hermes": ("hermes", "HermesParser"),
    "llama3_json": ("llama3_json", "Llama3JsonParser"),
    "mistral": ("mistral", "MistralParser"),
    "pythonic": ("pythonic", "PythonicParser"),
    "qwen3_xml": ("qwen3_xml", "Qwen3XmlParser"),
    "deepseek_v3": ("deepseek_v3", "DeepSeekV3Parser"),
    "openai": ("openai", "OpenAIParser"),
}
REASONING_PARSERS = {"deepseek_r1": ("deepseek_r1", "DeepSeekR1Parser"), "qwen3": ("qwen3", "Qwen3Parser")}
