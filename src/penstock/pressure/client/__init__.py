"""Client-side overload control: deadlines, throttling and retry budgets."""

__all__: list[str] = []
