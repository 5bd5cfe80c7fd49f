"""The rules that name a fault of a running process: a sentence, and the next step."""

from penstock.monitor.rules.diagnosis import Diagnosis, Observed
from penstock.monitor.rules.engine import diagnose, first_line

__all__ = ["Diagnosis", "Observed", "diagnose", "first_line"]
