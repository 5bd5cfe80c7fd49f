"""The options of `penstock serve` that have rules of their own."""

__all__: list[str] = []
