"""penstock: the asyncio runtime that Python services run on under load."""

__version__ = "0.1.0"
