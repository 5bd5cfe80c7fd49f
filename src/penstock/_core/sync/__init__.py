"""Gates and semaphores: their waiters, queues and permits."""

__all__: list[str] = []
