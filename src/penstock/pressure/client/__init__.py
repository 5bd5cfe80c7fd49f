"""Client side: deadlines, throttling and retry budgets."""

__all__: list[str] = []
