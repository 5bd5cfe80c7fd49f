"""Findings as log records, one logger a kind: `penstock.tasks.stall` and so on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.tasks.records import Finding

__all__ = ["log_finding"]


def log_finding(finding: Finding) -> None:
    """Log one finding, as a warning."""
    logging.getLogger(f"penstock.tasks.{finding.kind}").warning("%s", finding.message, extra={"finding": finding})
