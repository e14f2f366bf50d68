"""What one API server holds for its whole life, handed to everything that serves: no globals."""

from typing import Any, Literal

from frontend.engine_client import EngineClient
from frontend.model_text import ModelText
from frontend.settings import Settings
from protocol.scoreboard import Row, Scoreboard

ServerState = Literal["starting", "ready", "draining"]


class Services:
    """Made on the running event loop, before anything is known of the model."""

    settings: Settings
    place: int
    life: int
    scoreboard: Scoreboard
    row: Row  # this API server's own
    engine: EngineClient  # .ready: EngineReady | None, .welcome: Welcome | None, .heartbeat: Heartbeat | None
    model_names: tuple[str, ...]  # all that clients may ask for; the first is reported

    def __init__(self, settings: Settings, *, place: int, life: int, scoreboard: Scoreboard) -> None:
        raise NotImplementedError

    @property
    def state(self) -> ServerState:
        """Ready: model text loaded and an engine ready. Draining: this process or the whole server."""
        raise NotImplementedError

    @property
    def text(self) -> ModelText:
        """`.tokenizer`, `.chat_template` (None: the model has none), `.defaults` (sampling). 503 before they are loaded."""
        raise NotImplementedError

    @property
    def max_model_len(self) -> int:
        """Raises `ApiError` 503 before the engine is ready."""
        raise NotImplementedError

    async def loaded(self) -> None:
        """Wait until the model's text side is loaded, after the first `Welcome`. Raises what loading raised."""
        raise NotImplementedError

    async def tokenize(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Off the event loop, in this API server's one tokenizer thread."""
        raise NotImplementedError

    async def render_chat(self, messages: list[dict[str, Any]], **options: Any) -> str:
        """`ChatTemplate.render(messages, **options)` in the tokenizer thread. ApiError 400 for its ValueError."""
        raise NotImplementedError

    @property
    def num_open(self) -> int:
        """Generations under way: what a drain waits for."""
        raise NotImplementedError

    def begin_drain(self) -> None:
        """From now on the state is draining and no generation starts; those under way go on."""
        raise NotImplementedError

    def fail_open_requests(self, reason: str) -> None:
        """Every generation under way ends with `ApiError` 503."""
        raise NotImplementedError

    def close(self) -> None:
        """Give sockets and thread back."""
        raise NotImplementedError
