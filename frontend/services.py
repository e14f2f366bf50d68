"""What one API server holds for its whole life, handed to everything that serves: no globals."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol, TypeVar

from frontend.engine_client import EngineClient
from frontend.errors import ApiError, invalid, unavailable
from frontend.model_text import ModelText, load_model_text
from frontend.settings import Settings
from frontend.tally import Tally
from protocol.scoreboard import Scoreboard, State

log = logging.getLogger("headrace.services")

ServerState = Literal["starting", "ready", "draining"]
T = TypeVar("T")
_TOKENIZER_THREADS = 2  # so that a long prompt has one to itself
# Less than half a millisecond of work, which is what the way to a thread and back costs: it is done at once.
_SHORT_CHARS = 2048


class OpenRequest(Protocol):
    """`frontend.generation.Generation`, as far as a drain needs it."""

    def fail(self, error: ApiError) -> None: ...


class Services:
    """Made on the running event loop, before anything is known of the model."""

    def __init__(self, settings: Settings, *, place: int, life: int, scoreboard: Scoreboard) -> None:
        self.settings = settings
        self.place = place
        self.life = life
        self.scoreboard = scoreboard
        self.row = scoreboard.api_row(place)
        self.tally = Tally(self.row)
        self.engine = EngineClient(
            place=place,
            life=life,
            on_step=self.tally.flush,
            beaten_at=lambda rank: scoreboard.engine_row(rank).get("heartbeat_ns") / 1e9,
        )
        # all that clients may ask for; the first is reported
        self.model_names = settings.served_model_name or (settings.model,)
        self.open_requests: set[OpenRequest] = set()
        self._is_draining = False
        self._tokenizer_thread = ThreadPoolExecutor(_TOKENIZER_THREADS, "tokenizer")
        self._loop = asyncio.get_running_loop()
        self._text: asyncio.Future[ModelText] = self._loop.create_future()
        self._load_task: asyncio.Task[None] | None = None
        self.engine.on_welcome(self._begin_load)

    @property
    def state(self) -> ServerState:
        """Ready: model text loaded and an engine ready. Draining: this process or the whole server."""
        if self._is_draining or self.scoreboard.supervisor.get("state") == State.DRAINING:
            return "draining"
        return "ready" if self._has_text and self.engine.ready is not None else "starting"

    @property
    def text(self) -> ModelText:
        """The model's text side. Raises `ApiError` 503 before it is loaded."""
        if not self._has_text:
            raise unavailable("starting")
        return self._text.result()

    @property
    def max_model_len(self) -> int:
        """Raises `ApiError` 503 before the engine is ready."""
        if self.engine.ready is None:
            raise unavailable("starting")
        return self.engine.ready.max_model_len

    async def loaded(self) -> None:
        """Wait until the model's text side is loaded, after the first `Welcome`. Raises what loading raised."""
        await asyncio.shield(self._text)

    async def tokenize(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Long texts off the event loop, in one of this API server's few tokenizer threads."""
        tokenizer = self.text.tokenizer
        if len(text) <= _SHORT_CHARS:
            return tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return await self._in_thread(lambda: tokenizer.encode(text, add_special_tokens=add_special_tokens))

    async def render_chat(self, messages: list[dict[str, Any]], **options: Any) -> str:
        """`ChatTemplate.render(messages, **options)`, long ones in a thread. `ApiError` 400 for its ValueError."""
        template = self.text.chat_template
        if template is None:
            raise invalid("messages", "This model has no chat template; use /v1/completions or set --chat-template.")
        try:
            if _is_short(messages):
                return template.render(messages, **options)
            return await self._in_thread(lambda: template.render(messages, **options))
        except ValueError as error:
            raise invalid("messages", str(error)) from error

    @property
    def num_open(self) -> int:
        """Generations under way: what a drain waits for."""
        return len(self.open_requests)

    def begin_drain(self) -> None:
        """From now on the state is draining and no generation starts; those under way go on."""
        self._is_draining = True

    def fail_open_requests(self, reason: str) -> None:
        """Every generation under way ends with `ApiError` 503."""
        error = ApiError(503, reason)
        for request in list(self.open_requests):
            request.fail(error)

    def close(self) -> None:
        """Give sockets and thread back."""
        self.engine.close()
        self._tokenizer_thread.shutdown(wait=False, cancel_futures=True)
        self._text.cancel()

    @property
    def _has_text(self) -> bool:
        return self._text.done() and not self._text.cancelled() and self._text.exception() is None

    def _begin_load(self) -> None:
        self._load_task = self._loop.create_task(self._load())

    async def _load(self) -> None:
        """Its error belongs to who waits in `loaded`: without the text side this API server cannot serve."""
        assert self.engine.welcome is not None
        config_dir = self.engine.welcome.tokenizer_dir
        try:
            text = await self._in_thread(lambda: load_model_text(self.settings, config_dir))
        except (ValueError, OSError) as error:
            self._text.set_exception(error)
        else:
            self._text.set_result(text)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._tokenizer_thread, work)


def _is_short(messages: list[dict[str, Any]]) -> bool:
    """So short that rendering them takes next to no time."""
    num_chars = 0
    for message in messages:
        content = message["content"]
        num_chars += _SHORT_CHARS // 16 + (len(content) if isinstance(content, str) else _SHORT_CHARS)
    return num_chars <= _SHORT_CHARS
