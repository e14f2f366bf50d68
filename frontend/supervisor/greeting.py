"""What to try first, for those who started the demo."""

import json
from collections.abc import Iterator

from frontend.settings import Settings

_QUESTION = "What is a headrace?"


def first_steps(settings: Settings, url: str) -> Iterator[str]:
    """A curl line and a Python line that work as they stand; nothing for other models or a Unix socket."""
    if settings.model != "demo" or settings.uds is not None:
        return
    model = settings.served_model_name[0] if settings.served_model_name else settings.model
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": _QUESTION}]})
    yield f"try: curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"
    yield (
        f'or:  python -c "from openai import OpenAI; print(OpenAI(base_url={url + "/v1"!r}, api_key={"none"!r})'
        f".chat.completions.create(model={model!r}, messages=[dict(role={'user'!r}, content={_QUESTION!r})])"
        '.choices[0].message.content)"'
    )
