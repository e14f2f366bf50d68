"""Fields that are known and not served: one table of what each would need, and of the values that ask for nothing."""

from typing import Any

from frontend.errors import invalid
from frontend.openai_bodies.fields import SamplingFields

_GRAMMAR = "output bound to a grammar or schema is not supported; leave it out"
_FUNCTIONS = "this older form of tool calling is not supported; use tools and tool_choice"
_BEAMS = "beam search is not supported; leave it out, or ask for several choices with n"
_AUDIO = "the model reads and writes text only; leave it out"

# field -> (values that are harmless beside null, the sentence for all others)
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "response_format": (({"type": "text"},), _GRAMMAR),
    "structured_outputs": ((), _GRAMMAR),
    "guided_json": ((), _GRAMMAR),
    "guided_regex": ((), _GRAMMAR),
    "guided_choice": ((), _GRAMMAR),
    "guided_grammar": ((), _GRAMMAR),
    "use_beam_search": ((False,), _BEAMS),
    "length_penalty": ((1,), _BEAMS),
    "logits_processors": (([],), "code from a request is never run; leave it out"),
    "functions": (([],), _FUNCTIONS),
    "function_call": (("none", "auto"), _FUNCTIONS),
    "audio": ((), _AUDIO),
    "modalities": ((["text"],), _AUDIO),
    "web_search_options": ((), "this server searches nothing; leave it out"),
    "chat_template": ((), "a template is never taken from a request; start the server with --chat-template"),
    "documents": (([],), "documents are not supported; put their text into a message"),
    "suffix": (("",), "inserting before a suffix is not supported; leave it out"),
    "prompt_embeds": ((), "embeddings as prompts are not supported; send text or token ids"),
}


def check_refused(body: SamplingFields) -> None:
    """Raise `ApiError` 400 at the first field that asks for what is not served."""
    for field, (harmless, sentence) in _REFUSED.items():
        value = getattr(body, field, None)
        if value is not None and value not in harmless:
            raise invalid(field, f"{field}: {sentence}.")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise invalid("best_of", "best_of must equal n: every choice that is made is returned.")
