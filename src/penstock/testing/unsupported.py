"""What a virtual loop does not do, refused in one line that says so; programs that can do without get their chance."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["Refusals"]

DESCRIPTORS = "add_reader", "remove_reader", "add_writer", "remove_writer"
SOCKETS = "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendto"
SOCKETS_TOO = "sock_connect", "sock_accept", "sock_sendfile", "connect_accepted_socket"
PIPES = "connect_read_pipe", "connect_write_pipe", "subprocess_shell", "subprocess_exec"
OTHERS = "create_datagram_endpoint", "start_tls", "add_signal_handler", "remove_signal_handler"
REASONS = {
    DESCRIPTORS + SOCKETS + SOCKETS_TOO: "it waits for no descriptor; use create_server and create_connection",
    PIPES: "it starts no process and waits for no pipe",
    OTHERS: "its network has plain streams only, and signals would come at a moment no seed decides",
}


class Refusals:
    """Mixed into the virtual loop: each method of asyncio's that needs the machine raises NotImplementedError."""


def _refusal(name: str, why: str) -> Any:
    def refuse(self: Any, *args: Any, **options: Any) -> NoReturn:
        raise NotImplementedError(f"VirtualLoop.{name}: {why}")

    refuse.__name__ = name
    refuse.__doc__ = f"Refused: {why}."
    return refuse


for _names, _why in REASONS.items():
    for _name in _names:
        setattr(Refusals, _name, _refusal(_name, _why))
