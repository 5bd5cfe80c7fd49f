"""The asyncio methods that a virtual loop does not support: each raises NotImplementedError with its reason."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["UnsupportedMethods"]

DESCRIPTORS = "add_reader", "remove_reader", "add_writer", "remove_writer"
SOCKETS = "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendto"
MORE_SOCKETS = "sock_connect", "sock_accept", "sock_sendfile", "connect_accepted_socket"
PIPES = "connect_read_pipe", "connect_write_pipe", "subprocess_shell", "subprocess_exec"
OTHERS = "create_datagram_endpoint", "start_tls", "add_signal_handler", "remove_signal_handler"
REASONS = {
    DESCRIPTORS + SOCKETS + MORE_SOCKETS: "it waits for no descriptor; use create_server and create_connection",
    PIPES: "it starts no process and waits for no pipe",
    OTHERS: "its network has plain streams only, and the moment of a signal does not follow from a seed",
}


class UnsupportedMethods:
    """A mixin of the virtual loop: each asyncio method that needs the machine raises NotImplementedError."""


def _unsupported(name: str, reason: str) -> Any:
    def raise_error(self: Any, *args: Any, **options: Any) -> NoReturn:
        raise NotImplementedError(f"VirtualLoop.{name}: {reason}")

    raise_error.__name__ = name
    raise_error.__doc__ = f"Raise NotImplementedError: {reason}."
    return raise_error


for _names, _reason in REASONS.items():
    for _name in _names:
        setattr(UnsupportedMethods, _name, _unsupported(_name, _reason))
