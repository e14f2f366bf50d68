"""Binding: what is taken, stale or impossible is one sentence."""

import os
import socket
from pathlib import Path

import pytest

from frontend.settings import Settings
from frontend.supervisor.errors import StartError
from frontend.supervisor.listener import Listener, bind_listener
from protocol.process import ExitStatus


def listen(**settings: object) -> Listener:
    return bind_listener(Settings(model="demo", **{"port": 0, **settings}))  # type: ignore[arg-type]


def refusal(**settings: object) -> tuple[ExitStatus, str]:
    with pytest.raises(StartError) as caught:
        listen(**settings)
    return caught.value.status, str(caught.value)


def connect(listener: Listener) -> socket.socket:
    sock = socket.socket(listener.socket.family, socket.SOCK_STREAM)
    sock.settimeout(5)
    try:
        sock.connect(listener.socket.getsockname())
    except OSError:
        sock.close()
        raise
    return sock


def test_a_name_is_bound_as_ipv4_if_it_can_be() -> None:
    listener = listen(host="localhost")
    assert listener.socket.family == socket.AF_INET
    assert listener.url == f"http://localhost:{listener.socket.getsockname()[1]}"
    listener.close()


def test_all_interfaces_are_said_to_be_so() -> None:
    listener = listen()
    assert listener.on_all_interfaces
    assert listener.url.startswith("http://127.0.0.1:")
    with socket.create_connection(("127.0.0.1", listener.socket.getsockname()[1]), 5):
        pass
    listener.close()


def test_a_taken_port_names_port_and_way_out() -> None:
    first = listen(host="127.0.0.1")
    port = first.socket.getsockname()[1]
    for host in ("127.0.0.1", None):
        status, sentence = refusal(host=host, port=port)
        assert status == ExitStatus.CANNOT_START
        assert f"port {port} is taken" in sentence
        assert "--port" in sentence
    first.close()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "1.2.3.4.5"])
def test_a_foreign_address_is_a_wrong_setting(host: str) -> None:
    status, sentence = refusal(host=host)
    assert status == ExitStatus.WRONG_SETTINGS
    assert host in sentence


def test_a_port_can_be_bound_again_at_once() -> None:
    first = listen(host="127.0.0.1")
    port = first.socket.getsockname()[1]
    with connect(first):
        accepted, _ = first.socket.accept()
        accepted.close()  # the server's side closes first: the address lingers
    first.close()
    listen(host="127.0.0.1", port=port).close()


def test_refusing_is_seen_at_once_also_by_holders_of_copies() -> None:
    listener = listen(host="127.0.0.1")
    copy = listener.socket.dup()
    listener.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(listener)
    copy.close()
    listener.close()


def test_waiting_connections_are_waited_for() -> None:
    listener = listen(host="127.0.0.1")
    with connect(listener):
        listener.wait_until_accepted(0.01)  # nobody accepts: it gives up
        accepted, _ = listener.socket.accept()
        listener.wait_until_accepted(60)
        accepted.close()
    listener.close()


def test_a_unix_socket_takes_the_place_of_a_stale_one_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listener = listen(uds=str(path))
    assert listener.url == f"unix:{path}"
    connect(listener).close()
    listener.close()
    assert not path.exists()


def test_a_unix_socket_in_use_and_other_files_are_not_touched(tmp_path: Path) -> None:
    path, file = tmp_path / "s", tmp_path / "f"
    file.write_text("precious")
    listener = listen(uds=str(path))
    assert "in use" in refusal(uds=str(path))[1]
    assert "is no socket" in refusal(uds=str(file))[1]
    assert file.read_text() == "precious"
    connect(listener).close()
    listener.close()
    assert refusal(uds=str(tmp_path / "missing" / "s"))[0] == ExitStatus.CANNOT_START


def test_a_successors_unix_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = listen(uds=str(path))
    os.unlink(path)
    second = listen(uds=str(path))
    first.close()
    connect(second).close()
    second.close()
