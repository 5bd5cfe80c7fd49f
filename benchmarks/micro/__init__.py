"""Micro rows: the cost of a callback, a timer or a task, without a network."""
