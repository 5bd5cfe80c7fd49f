"""The native core, in Cython: what runs once per callback or once per packet. Imports nothing from penstock."""

__all__: list[str] = []
