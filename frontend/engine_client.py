"""The only door to the engine cores: which there are, and which of them computes a request."""

from collections.abc import Callable, Sequence
from functools import partial

import zmq

from frontend.engine_connection import Endpoint
from frontend.engine_link import EngineLink
from frontend.engine_socket import Context
from frontend.errors import internal, unavailable
from frontend.token_stream import TokenStream
from protocol.messages import EngineReady, Heartbeat, Welcome


class EngineClient:
    """Every engine core that this API server knows of. Made on the running event loop."""

    def __init__(
        self, *, place: int, life: int, on_step: Callable[[], None], beaten_at: Callable[[int], float]
    ) -> None:
        """`beaten_at(rank)`: when that engine core last sent its heartbeats, in seconds of the monotonic clock."""
        self.welcome: Welcome | None = None  # the first one; every engine core of a server has the same model
        self.on_step = on_step
        self._place = place
        self._life = life
        self._beaten_at = beaten_at
        self._context: Context = zmq.Context()
        self._links: dict[int, EngineLink] = {}  # by rank
        self._next_number = 0
        self._welcome_callbacks: list[Callable[[], None]] = []
        self._ready_callbacks: list[Callable[[], None]] = []

    @property
    def ready(self) -> EngineReady | None:
        """What the first engine core that can serve said of itself."""
        return next((link.ready for link in self._links.values() if link.ready is not None), None)

    @property
    def num_ready(self) -> int:
        """Engine cores that are connected and can run a step."""
        return sum(link.is_ready for link in self._links.values())

    @property
    def heartbeat(self) -> Heartbeat | None:
        """The last one of the engine core that the next request would go to."""
        link = self._least_loaded()
        return link.heartbeat if link else None

    def connect(self, rank: int, epoch: int, address: str) -> None:
        """An engine core is, or soon will be, at the address. A new epoch takes over the rank's unfinished rows."""
        endpoint = Endpoint(
            context=self._context,
            address=address,
            rank=rank,
            epoch=epoch,
            place=self._place,
            life=self._life,
            beaten_at=partial(self._beaten_at, rank),
        )
        old = self._links.pop(rank, None)
        self._links[rank] = EngineLink(endpoint, self)
        if old is not None:
            self._links[rank].adopt(old)

    def ended(self, rank: int, epoch: int, cause: str) -> None:
        """The supervisor saw this epoch end: its open requests fail."""
        link = self._links.get(rank)
        if link is not None and link.endpoint.epoch == epoch:
            del self._links[rank]
            link.fail_rows(internal(f"The engine core ended while it computed this request: {cause}"))

    def on_welcome(self, callback: Callable[[], None]) -> None:
        """Call back once the model's facts are known; at once if they are."""
        self._welcome_callbacks.append(callback)
        if self.welcome is not None:
            callback()

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Call back whenever an engine core can run a step; at once if one can."""
        self._ready_callbacks.append(callback)
        if self.ready is not None:
            callback()

    def reserve_numbers(self, count: int) -> int:
        """The first of `count` row numbers that nobody had before."""
        first = self._next_number
        self._next_number += count
        return first

    def submit(self, rows: Sequence[TokenStream]) -> None:
        """The choices of one request go to the engine core with the least to do. 503 when there is none."""
        link = self._least_loaded()
        if link is None:
            raise unavailable("starting")
        link.submit(rows)

    def abort(self, numbers: Sequence[int]) -> None:
        """End these rows wherever they are; those that have ended are passed over."""
        for link in self._links.values():
            link.abort(numbers)

    def close(self) -> None:
        """Close every connection at once."""
        for link in self._links.values():
            link.close()
        self._links.clear()
        self._context.destroy(linger=0)

    def _least_loaded(self) -> EngineLink | None:
        """Of those that were ready once, a connected one if there is any."""
        links = [link for link in self._links.values() if link.ready is not None]
        return min(links, key=lambda link: (not link.is_ready, link.load), default=None)

    # --- what links tell ---------------------------------------------------------------------------------------------

    def link_welcomed(self, welcome: Welcome) -> None:
        if self.welcome is None:
            self.welcome = welcome
            for callback in self._welcome_callbacks:
                callback()

    def link_ready(self) -> None:
        for callback in self._ready_callbacks:
            callback()
