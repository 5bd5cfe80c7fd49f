"""Runs the process of the page: `python -m penstock.monitor.page PID --bind HOST:PORT`."""

import sys

from penstock.monitor.page.process import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
