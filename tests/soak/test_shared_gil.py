"""`make soak`: a loop that cannot have the GIL, since C code in another thread has it. Half a minute of waiting."""

import threading

from penstock.tasks.detectors.stalls import StallWatch
from tests.unit.tasks.test_stalls import busy, found_in, holding_the_gil, watch

__all__ = ["watch"]


def test_c_code_in_another_thread_that_holds_the_gil_is_found(watch: StallWatch) -> None:
    call = holding_the_gil()
    is_over = threading.Event()

    def hold() -> None:
        while not is_over.is_set():
            call()

    other = threading.Thread(target=hold)
    other.start()
    try:
        finding = found_in(watch, lambda loop: [lambda: busy(0.01)] * 10, "gil", tries=3)
    finally:
        is_over.set()
        other.join()
    assert finding.evidence["gil_wait_s"] > 0.05
