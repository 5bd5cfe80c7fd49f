"""What every test may count on, whoever started the run."""

import gc
import signal

from hypothesis import HealthCheck, settings

# A shell's background job ignores SIGINT, and so would every process that a test starts to be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How fast an example is made and run says how busy the machine is, nothing of what is tested.
settings.register_profile("penstock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("penstock")


def pytest_collection_finish() -> None:
    """What is loaded by now stays: tests that collect garbage, some hundreds of times, need not walk over it."""
    gc.collect()
    gc.freeze()
