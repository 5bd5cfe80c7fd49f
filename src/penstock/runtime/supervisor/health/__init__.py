"""The health of worker processes: words in shared memory, the judgement of a hang, stacks without the GIL."""

__all__: list[str] = []
