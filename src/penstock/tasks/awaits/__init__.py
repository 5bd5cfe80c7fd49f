"""Await chains: what each task waits for."""

__all__: list[str] = []
