"""`python -m penstock`: the command line, for when the `penstock` script is not on the path."""

import sys

from penstock.cli import main

__all__: list[str] = []

sys.exit(main())
