"""The command line as `python -m penstock`."""

import sys

from penstock.cli import main

__all__: list[str] = []

sys.exit(main())
