"""Executors: how large they are and how they are built."""

from penstock.executors.sizing import Cores, usable_cores
from penstock.executors.threads import default_threads, dns_threads

__all__ = ["Cores", "default_threads", "dns_threads", "usable_cores"]
