"""The native core: imports nothing from penstock."""
