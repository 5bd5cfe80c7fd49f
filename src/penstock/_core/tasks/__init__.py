"""The native half of task telemetry: the probe, its records and the watchdog."""

__all__: list[str] = []
