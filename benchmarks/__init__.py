"""Benchmarks of the loops people run: stock asyncio, uvloop, rloop and penstock, measured side by side.

`python benchmarks/compare.py` is the way in; `benchmarks/instructions.py` counts instructions instead of time.
"""
