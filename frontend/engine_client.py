"""The only door to the engine cores: connections, the choice among them, and the rows under way."""

from collections.abc import Callable

from protocol.messages import EngineReady, Heartbeat, Welcome


class EngineClient:
    """Every engine core that this API server knows of."""

    ready: EngineReady | None
    welcome: Welcome | None
    heartbeat: Heartbeat | None

    def connect(self, rank: int, epoch: int, address: str) -> None:
        """An engine core is (or will be) there. A new epoch replaces the rank's old one."""
        raise NotImplementedError

    def ended(self, rank: int, epoch: int, cause: str) -> None:
        """The supervisor saw this epoch end: its open requests fail."""
        raise NotImplementedError

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Call back once the first engine core can run a step; at once if it can already."""
        raise NotImplementedError
