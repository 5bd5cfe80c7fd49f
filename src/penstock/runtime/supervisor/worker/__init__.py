"""The side of the worker processes: their orders, their link to the supervisor, the template that forks them."""

__all__: list[str] = []
