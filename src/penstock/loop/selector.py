"""The pure loop: asyncio's own selector loop. Replaced by A."""

import asyncio


class EventLoop(asyncio.SelectorEventLoop):
    def __init__(self, config: object = None) -> None:
        super().__init__()
