"""Commands that attach to a running process: each file parses its options, asks the process and renders the answer."""

__all__: list[str] = []
