"""POST /tokenize and /detokenize."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from frontend.endpoints.body import BodyReader, served_model
from frontend.endpoints.chat import render_messages
from frontend.endpoints.prompts import encode_prompt
from frontend.endpoints.responses import JsonBytes
from frontend.errors import invalid
from frontend.openai_bodies.tokens import DetokenizeAnswer, DetokenizeBody, TokenizeAnswer, TokenizeBody
from frontend.services import Services
from frontend.translate.sampling import said


class TokenEndpoint:
    """The model's tokenizer, as a service."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tokenize_reader = BodyReader(TokenizeBody, services.settings)
        self._detokenize_reader = BodyReader(DetokenizeBody, services.settings)

    async def tokenize(self, request: Request) -> Response:
        """A text, or messages as a chat would see them."""
        body = await self._tokenize_reader.read(request)
        served_model(self._services, body.model)
        ids = await self._ids(body)
        tokenizer = self._services.text.tokenizer
        answer = TokenizeAnswer(
            count=len(ids),
            max_model_len=self._services.max_model_len,
            tokens=ids,
            token_strs=[tokenizer.token_text(token_id) for token_id in ids] if body.return_token_strs else None,
        )
        return JsonBytes(msgspec.json.encode(answer))

    async def detokenize(self, request: Request) -> Response:
        """Special tokens are shown."""
        body = await self._detokenize_reader.read(request)
        served_model(self._services, body.model)
        tokenizer = self._services.text.tokenizer
        for token_id in body.tokens:
            if token_id >= tokenizer.vocab_size:
                raise invalid("tokens", f"tokens: id {token_id} is not between 0 and {tokenizer.vocab_size - 1}.")
        text = tokenizer.decode(body.tokens, skip_special_tokens=False)
        return JsonBytes(msgspec.json.encode(DetokenizeAnswer(prompt=text)))

    async def _ids(self, body: TokenizeBody) -> list[int]:
        if (body.prompt is None) == (body.messages is None):
            raise invalid("prompt", "exactly one of prompt and messages is required.")
        if body.messages is None:
            text, param = body.prompt or "", "prompt"
        else:
            text, param = await render_messages(self._services, body.messages, body), "messages"
        special = said(body.add_special_tokens, default=body.messages is None)
        return await encode_prompt(self._services, text, add_special_tokens=special, truncates=False, param=param)
