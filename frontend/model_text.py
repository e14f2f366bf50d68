"""The text side of one model: tokenizer, chat template and sampling defaults, loaded together from its folder."""

from dataclasses import dataclass

from frontend.chat_template import ChatTemplate
from frontend.chat_template_files import load_chat_template
from frontend.detokenizer import make_detokenizer
from frontend.reasoning_parsers import ReasoningParser, find_reasoning_parser
from frontend.sampling_defaults import SamplingDefaults, load_sampling_defaults
from frontend.settings import Settings
from frontend.tokenizer import Tokenizer
from frontend.tool_parsers import ToolParser, find_tool_parser


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelText:
    """Everything that turns text into ids and back."""

    tokenizer: Tokenizer
    chat_template: ChatTemplate | None  # None: the model has none
    defaults: SamplingDefaults
    tool_parser: type[ToolParser] | None  # None: requests cannot have the model choose tools
    reasoning_parser: type[ReasoningParser] | None


def load_model_text(settings: Settings, config_dir: str) -> ModelText:
    """Read the folder. Takes a second; raises ValueError or OSError whose message names the file."""
    tokenizer = Tokenizer(config_dir)
    for skip in (True, False):  # the first of each kind builds a table of the vocabulary: not on the event loop
        make_detokenizer(tokenizer, skip_special_tokens=skip)
    return ModelText(
        tokenizer=tokenizer,
        chat_template=load_chat_template(
            config_dir, override=settings.chat_template, content_format=settings.chat_template_content_format
        ),
        defaults=load_sampling_defaults(settings, config_dir),
        tool_parser=None
        if settings.tool_call_parser is None
        else find_tool_parser(settings.tool_call_parser, settings.tool_parser_plugin),
        reasoning_parser=None
        if settings.reasoning_parser is None
        else find_reasoning_parser(settings.reasoning_parser),
    )
