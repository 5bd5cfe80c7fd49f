"""A listener that another process shuts down behind the loop's back."""

import asyncio
import socket

import pytest

from penstock.loop import NATIVE, EventLoop


@pytest.mark.skipif(not NATIVE, reason="asyncio's own loop accepts again and again")
def test_a_listener_that_a_sharer_shuts_down_is_told_once_a_second_and_costs_no_turns():
    loop = EventLoop()
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))

    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        began_s = loop.time()
        with socket.socket(fileno=server.sockets[0].dup().detach()) as shared:
            shared.shutdown(socket.SHUT_RDWR)
        await asyncio.sleep(0.2)
        server.close()
        return loop.time() - began_s

    took_s = loop.run_until_complete(main())
    loop.close()
    assert 1 <= len(reports) <= 1 + took_s
    assert all("accept() failed" in report["message"] for report in reports)
