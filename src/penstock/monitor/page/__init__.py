"""The web page of the monitor: a process of its own that asks attach sockets and serves HTTP.

The observed process only answers on its attach socket, so the page goes on while a loop or the GIL is blocked.
"""

__all__: list[str] = []
