"""Rows with no network: what one scheduled callback, timer or task costs."""
