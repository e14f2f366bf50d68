"""A server that does nothing but write: what the load client could take, in the pattern of one event a write."""

import socket
import time

from scripts.frontend_bench.page import Page

_EVENT = (
    b'data: {"id":"cmpl-0123456789abcdef0123456789abcdef","object":"text_completion","created":1700000000,'
    b'"model":"demo","system_fingerprint":"headrace-0.0.0","choices":[{"index":0,"text":" word","logprobs":null,'
    b'"finish_reason":null}]}\n\n'
)
_CHUNK = b"%x\r\n%b\r\n" % (len(_EVENT), _EVENT)
_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def serve_null(listener: socket.socket, page: Page, num_streams: int) -> None:
    """Answer each connection's request with events for ever, a round at a time, as fast as clients count them."""
    streams = []
    for _ in range(num_streams):
        sock, _ = listener.accept()
        streams.append(sock)
    for sock in streams:
        sock.recv(65536)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(_HEAD)
    num_sent = 0
    while not page.stopped:
        if num_sent - page.total("events") >= 2 * num_streams:
            time.sleep(0.0001)
            continue
        for sock in streams:
            sock.send(_CHUNK)
        num_sent += num_streams
    for sock in streams:
        sock.close()
