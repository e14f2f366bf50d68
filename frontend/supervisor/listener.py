"""The one listening socket: bound by the supervisor before anything slow, inherited by API servers and nobody else."""

import contextlib
import errno
import os
import select
import socket
import stat
import time
from pathlib import Path

from frontend.settings import Settings
from frontend.supervisor.errors import StartError
from protocol.process import ExitStatus

BACKLOG = 2048  # the kernel takes less where net.core.somaxconn says so


class Listener:
    """A bound, listening, non-blocking socket."""

    def __init__(self, sock: socket.socket, *, url: str, on_all_interfaces: bool = False) -> None:
        sock.settimeout(0)
        self.socket = sock
        self.url = url
        self.on_all_interfaces = on_all_interfaces
        self._path = _Path(sock.getsockname()) if sock.family == socket.AF_UNIX else None

    def wait_until_accepted(self, timeout_s: float) -> None:
        """Wait until the API servers have accepted every connection that was waiting."""
        deadline = time.monotonic() + timeout_s
        while select.select([self.socket], [], [], 0)[0] and time.monotonic() < deadline:
            time.sleep(0.002)  # a listener says when it becomes readable, not when it ceases to be

    def refuse(self) -> None:
        """From now on connecting is refused. Closing would not do: the API servers hold copies (tried)."""
        with contextlib.suppress(OSError):  # ENOTCONN: done before
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Refuse, and remove the socket's file."""
        self.refuse()
        self.socket.close()
        if self._path is not None:
            self._path.remove()


class _Path:
    """The file of our Unix socket, told by its inode from another server's under the same name."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = self._look()

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self._look() == self._identity:
                os.unlink(self._path)

    def _look(self) -> tuple[int, int]:
        found = os.stat(self._path)
        return found.st_dev, found.st_ino


def bind_listener(settings: Settings) -> Listener:
    """Bind what the settings ask for. Raises `StartError`."""
    if settings.uds is not None:
        return _bind_unix(settings.uds)
    if settings.host is None:
        return _bind_all(settings.port)
    return _bind_host(settings.host.removeprefix("[").removesuffix("]"), settings.port)


def _bind_all(port: int) -> Listener:
    """IPv6 and IPv4 in one socket where the machine has IPv6, else IPv4 alone."""
    try:
        sock = _listen(socket.AF_INET6, ("::", port), dual_stack=True)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise _bind_error("all interfaces", port, error) from None
        try:
            sock = _listen(socket.AF_INET, ("0.0.0.0", port))
        except OSError as error:
            raise _bind_error("all interfaces", port, error) from None
    return Listener(sock, url=f"http://127.0.0.1:{sock.getsockname()[1]}", on_all_interfaces=True)


def _bind_host(host: str, port: int) -> Listener:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(
            ExitStatus.WRONG_SETTINGS, f"--host {host} is no address of this machine: {error.strerror}"
        ) from None
    # A name such as localhost has addresses of both families but there is one socket: most clients try IPv4.
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    try:
        sock = _listen(family, address)
    except OSError as error:
        raise _bind_error(host, port, error) from None
    shown = f"[{host}]" if ":" in host else host
    return Listener(sock, url=f"http://{shown}:{sock.getsockname()[1]}")


def _listen(family: int, address: tuple[object, ...] | str, *, dual_stack: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            # Only to take over a port whose old connections linger; a listening socket on it is still an error.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual_stack))
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _bind_error(host: str, port: int, error: OSError) -> StartError:
    if error.errno == errno.EADDRINUSE:
        return StartError(
            ExitStatus.CANNOT_START, f"port {port} is taken on {host}; choose another --port, or 0 for a free one"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return StartError(ExitStatus.WRONG_SETTINGS, f"--host {host} is no address of this machine")
    return StartError(ExitStatus.CANNOT_START, f"port {port} on {host} cannot be bound: {error.strerror}")


def _bind_unix(path: str) -> Listener:
    path = os.path.abspath(path)
    try:
        _remove_stale_socket(path)
        sock = _listen(socket.AF_UNIX, path)
    except OSError as error:
        raise StartError(ExitStatus.CANNOT_START, f"--uds {path} cannot be bound: {error.strerror}") from None
    return Listener(sock, url=f"unix:{path}")


def _remove_stale_socket(path: str) -> None:
    """A socket file outlives a killed server, and binding fails while it is there."""
    try:
        is_socket = stat.S_ISSOCK(Path(path).lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise StartError(ExitStatus.CANNOT_START, f"--uds {path} exists and is no socket; name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)  # a full backlog, too, means that somebody listens
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise StartError(ExitStatus.CANNOT_START, f"--uds {path} is in use by another server; name another path")
