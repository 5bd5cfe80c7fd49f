"""A small HTTP load generator: keep-alive connections with one request each in flight, for a number of seconds.

`python examples/load.py PORT [CONNECTIONS] [SECONDS] [PATH]` prints JSON: requests per second and the 50th and 99th
percentile of the latency in ms. It uses the selector without an event loop, so that it favours none.
"""

import json
import selectors
import socket
import sys
from time import perf_counter_ns

REQUEST = "GET {} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
ENDING = b"from penstock\n"


def main(port: int, connections: int = 32, seconds: float = 1.5, path: str = "/") -> dict[str, float]:
    request = REQUEST.format(path).encode()
    with selectors.DefaultSelector() as selector:
        for _ in range(connections):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(sock, selectors.EVENT_READ, perf_counter_ns())
            sock.sendall(request)
        return drive(selector, int(seconds * 1e9), request)


def drive(selector: selectors.BaseSelector, span_ns: int, request: bytes) -> dict[str, float]:
    """Send the next request after each response until the time is up, and return the summary."""
    latencies_ns: list[int] = []
    begin = now = perf_counter_ns()
    sent_ns = {key.fd: key.data for key in selector.get_map().values()}
    while now - begin < span_ns:
        for key, _ in selector.select(timeout=1.0):
            sock: socket.socket = key.fileobj  # type: ignore[assignment]
            data = sock.recv(4096)
            if not data:
                raise SystemExit("the server closed a connection")
            if data.endswith(ENDING):
                now = perf_counter_ns()
                latencies_ns.append(now - sent_ns[key.fd])
                sent_ns[key.fd] = now
                sock.send(request)
        now = perf_counter_ns()
    return summary(latencies_ns, now - begin)


def summary(latencies_ns: list[int], span_ns: int) -> dict[str, float]:
    ordered = sorted(latencies_ns) or [0]
    percentile = {share: ordered[int(len(ordered) * share / 100)] / 1e6 for share in (50, 99)}
    return {"per_second": len(latencies_ns) / (span_ns / 1e9), "p50_ms": percentile[50], "p99_ms": percentile[99]}


if __name__ == "__main__":
    words = sys.argv[1:]
    print(json.dumps(main(*map(int, words[:2]), *map(float, words[2:3]), *words[3:4])))
