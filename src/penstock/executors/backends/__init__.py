"""Lanes over other executors: interpreters, Dask, Ray."""

__all__: list[str] = []
