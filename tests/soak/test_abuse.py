"""`make soak`: a server that is abused, at full size; ten minutes of overload (SOAK_SECONDS), a minute an attack."""

import os

from tests.soak import ordeals
from tests.soak.ordeals import Bound

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
ATTACK_S = min(60.0, SECONDS / 10)
BOUND = Bound(times=2, more_s=0.01)


def test_memory_stands_still_at_ten_times_the_capacity() -> None:
    ordeals.overload(4000, SECONDS, ordeals.stands_still)


def test_five_thousand_slow_senders_do_not_slow_the_others() -> None:
    # each is cut after 10 s, and comes anew
    ordeals.slow_senders(5000, ATTACK_S, BOUND, receive_s=10.0)


def test_a_machine_that_stalls_turns_nobody_away() -> None:
    ordeals.stalls(1000, ATTACK_S, BOUND)


def test_a_storm_of_resets_does_not_slow_the_others() -> None:
    ordeals.resets(1000, ATTACK_S, BOUND)


def test_readers_that_do_not_read_are_disconnected() -> None:
    ordeals.readers_that_do_not_read(100, ATTACK_S, BOUND)


def test_a_server_without_descriptors_serves_whom_it_has() -> None:
    ordeals.no_descriptors_left(ATTACK_S, BOUND)
