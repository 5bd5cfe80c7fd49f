"""Clients in closed loops, on kept and on new connections, and the requests that they lose at a stop."""

import socket
import threading
from contextlib import closing

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n%b\r\n"
TIMEOUT_S = 60


class Clients:
    """Clients that send requests until their connections are refused, each in a thread."""

    def __init__(self, address: tuple[str, int] | str, count: int) -> None:
        self.lost: list[str] = []
        self.served = 0
        self._address = address
        self._lock = threading.Lock()
        self._warm = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._run, args=(index % 2 == 0,)) for index in range(count)]
        for thread in self._threads:
            thread.start()

    def wait_until_busy(self) -> None:
        """Wait until each client has received a few answers."""
        for _ in self._threads:
            assert self._warm.acquire(timeout=TIMEOUT_S)

    def join(self) -> None:
        """Wait until each client's connection is refused."""
        for thread in self._threads:
            thread.join(TIMEOUT_S)
        assert not any(thread.is_alive() for thread in self._threads)

    def _run(self, is_kept: bool) -> None:
        count = 0
        while (sock := self._connected()) is not None:
            with closing(sock):
                try:
                    while True:
                        is_last = self._ask(sock, is_kept)
                        count += 1
                        if count == 5:
                            self._warm.release()
                        if is_last:
                            break
                except (OSError, EOFError) as error:
                    self.lost.append(f"{'kept' if is_kept else 'new'}: {error!r}")

    def _connected(self) -> socket.socket | None:
        try:
            sock = socket.socket(socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET)
            sock.settimeout(TIMEOUT_S)
            sock.connect(self._address)
        except (ConnectionRefusedError, FileNotFoundError):
            sock.close()
            return None
        return sock

    def _ask(self, sock: socket.socket, is_kept: bool) -> bool:
        """Send a request, and return whether the answer closes its connection."""
        sock.sendall(REQUEST % (b"" if is_kept else b"connection: close\r\n"))
        answer = b""
        while not answer.endswith(b"\r\n\r\ndone"):
            more = sock.recv(65536)
            if not more:
                raise EOFError(f"after {answer!r}")
            answer += more
        with self._lock:
            self.served += 1
        return b"connection: close" in answer.lower()
