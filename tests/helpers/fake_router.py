"""A ROUTER without sockets: what a `Mailbox` asks of one, in the test's own thread. Frames are real bytes."""

from collections import deque
from collections.abc import Sequence

import zmq


class FakeRouter:
    """Delivers to `sent[identity]`; identities in `gone` and `stuck` refuse as libzmq does."""

    def __init__(self) -> None:
        self.inbox: deque[list[bytes]] = deque()
        self.sent: dict[bytes, list[list[bytes]]] = {}
        self.gone: set[bytes] = set()
        self.stuck: set[bytes] = set()
        self._half: list[bytes] = []

    def push(self, identity: bytes, *frames: bytes) -> None:
        """A peer sends this."""
        self.inbox.append([identity, *frames])

    def getsockopt(self, option: int) -> int:
        """Whether there is mail."""
        assert option == zmq.EVENTS
        return int(zmq.POLLIN) if self.inbox else 0

    def recv_multipart(self, flags: int = 0) -> list[bytes]:
        """The next mail."""
        return self.inbox.popleft()

    def send(self, frame: bytes, flags: int) -> None:
        """One frame: the first is the identity, as with ROUTER_MANDATORY."""
        if not self._half and frame in self.gone:
            raise zmq.ZMQError(zmq.EHOSTUNREACH)
        if not self._half and frame in self.stuck:
            raise zmq.ZMQError(zmq.EAGAIN)
        self._half.append(frame)
        if not flags & zmq.SNDMORE:
            identity, *frames = self._half
            self._half = []
            self.sent.setdefault(identity, []).append(frames)

    def take(self, identity: bytes) -> Sequence[list[bytes]]:
        """What was sent to the identity since the last look."""
        assert not self._half, "a message was begun and not ended"
        return self.sent.pop(identity, [])
