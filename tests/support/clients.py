"""Small clients for servers under test."""

import socket

__all__ = ["answer_of", "ask_http"]

PATIENCE_S = 20.0


def ask_http(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """Make one HTTP request on a blocking socket. Return the status and the body, without its last line end."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
        client.sendall(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        return answer_of(client)


def answer_of(client: socket.socket) -> tuple[int, str]:
    """Read an answer up to the end of the connection. Return the status and the body."""
    with client.makefile("rb") as stream:
        head, _, body = stream.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode().rstrip("\n")
