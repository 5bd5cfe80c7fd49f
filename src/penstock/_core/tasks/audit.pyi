EVENTS: tuple[str, ...]
