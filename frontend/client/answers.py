"""What of OpenAI's answers the client reads: chunks, usage, model names and errors. Other fields are not here."""

import msgspec

from frontend.client.connection import ClientError
from frontend.client.http_client import Answer, HttpClient

DONE = b"[DONE]"
MAX_ERROR_CHARS = 300


class Usage(msgspec.Struct, frozen=True):
    """Token counts as the server reports them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class ChatDelta(msgspec.Struct, frozen=True):
    """What a chunk adds to a chat answer."""

    role: str | None = None
    content: str | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    """One choice of a chunk: `text` of a completion, or `delta` of a chat."""

    text: str | None = None
    delta: ChatDelta | None = None
    finish_reason: str | None = None


class ApiProblem(msgspec.Struct, frozen=True):
    """The inside of OpenAI's error shape."""

    message: str = ""


class Chunk(msgspec.Struct, frozen=True):
    """One event of a stream; an `error` ends it."""

    choices: tuple[ChunkChoice, ...] = ()
    usage: Usage | None = None
    error: ApiProblem | str | None = None


class _Model(msgspec.Struct, frozen=True):
    id: str


class _ModelList(msgspec.Struct, frozen=True):
    data: tuple[_Model, ...]


_chunks = msgspec.json.Decoder(Chunk)
_models = msgspec.json.Decoder(_ModelList)


def decode_chunk(event: bytes) -> Chunk:
    """One event's data. Raises `ClientError` when it is no chunk or tells of an error."""
    try:
        chunk = _chunks.decode(event)
    except msgspec.MsgspecError as error:
        raise ClientError(f"an event of the stream is no chunk: {error}") from error
    if chunk.error is not None:
        raise ClientError(_problem_text(chunk.error))
    return chunk


def refusal(answer: Answer) -> str:
    """One sentence for an answer that is not what was asked for."""
    try:
        error = _chunks.decode(answer.body).error
    except msgspec.MsgspecError:
        error = None
    text = answer.body.decode(errors="replace") if error is None else _problem_text(error)
    return f"HTTP {answer.status}: {text[:MAX_ERROR_CHARS].strip() or 'no reason given'}"


async def first_model(client: HttpClient) -> str:
    """The name of the endpoint's first model. Raises `ClientError`."""
    answer = await client.get("/v1/models")
    if answer.status != 200:
        raise ClientError(refusal(answer))
    try:
        models = _models.decode(answer.body).data
    except msgspec.MsgspecError as error:
        raise ClientError(f"{client.url}/v1/models gives no list of models: {error}") from error
    if not models:
        raise ClientError(f"{client.url} lists no model")
    return models[0].id


def _problem_text(error: ApiProblem | str) -> str:
    return error if isinstance(error, str) else error.message
