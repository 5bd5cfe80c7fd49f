"""Rows of the executors: what a call costs that runs in another process, and what CPU work there does to the loop."""
