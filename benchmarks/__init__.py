"""Benchmarks of penstock beside other event loops, executors, task monitors and overload guards.

`python benchmarks/compare.py` is the way in; `benchmarks/instructions.py` counts instructions instead of time.
"""
