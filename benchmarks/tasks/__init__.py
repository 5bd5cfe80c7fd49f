"""Rows of task telemetry: penstock at each level, and other monitors of tasks."""
