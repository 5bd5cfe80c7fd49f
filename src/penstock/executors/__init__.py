"""Executors: how large they are and how they are built."""

from penstock.executors.sizing import Cores, usable_cores

__all__ = ["Cores", "usable_cores"]
