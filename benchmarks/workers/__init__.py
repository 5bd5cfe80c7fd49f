"""Servers with worker processes: the memory of idle ones, and requests per second."""
