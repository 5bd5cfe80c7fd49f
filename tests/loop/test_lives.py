"""Loops that begin and end leave nothing: no descriptor, thread, child or object (tests/soak runs 500 of them)."""

from tests.soak.lives import lives


def test_twenty_lives_leave_nothing(loop_factory, contexts):
    growth = lives(loop_factory, contexts, count=20, first=4)
    assert growth[:3] == (0, 0, 0)
    # fewer than one a life
    assert growth.objects < 20
