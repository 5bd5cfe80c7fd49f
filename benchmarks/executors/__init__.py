"""Rows of the executors: the cost of a call in another process, and the loop's delay under CPU work there."""
