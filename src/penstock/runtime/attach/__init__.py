"""The attach server of each process: it answers this user's monitors on a Unix socket, in threads of its own."""

__all__: list[str] = []
