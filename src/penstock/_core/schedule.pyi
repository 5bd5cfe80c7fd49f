"""Gives the Reactor its `call_soon`, `call_soon_threadsafe`, `call_later` and `call_at` when it is imported."""
