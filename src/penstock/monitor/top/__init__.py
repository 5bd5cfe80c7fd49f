"""`penstock top`: figures of running processes in a terminal, which need the extra `tui`."""
