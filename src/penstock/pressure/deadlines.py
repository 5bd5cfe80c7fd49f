"""The documented import path of `penstock.pressure.client.deadline`."""

from penstock.pressure.client.deadline import deadline, expires_at, remaining_s

__all__ = ["deadline", "expires_at", "remaining_s"]
