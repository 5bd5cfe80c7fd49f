"""When a loop is behind: watermarks over the wait of what is ready, told turn by turn by a made-up clock."""

import pytest

from penstock._core.overload.lag import Lag

MS = 1_000_000
START = 1_000_000 * MS


class Turns:
    """A loop whose turns are told to a Lag: each takes so long, waits so long before, and leaves so much."""

    def __init__(self, **watermarks):
        self.changes = []
        watermarks = {"high_ns": 10 * MS, "low_ns": 4 * MS, "for_ns": 100 * MS} | watermarks
        self.lag = Lag(**watermarks, report=lambda: self.changes.append(self.lag.is_overloaded))
        self.now_ns = START
        self.lag.turn(self.now_ns)

    def turn(self, busy_ns, *, idle_ns=0, ran=2, waited_ns=0, deferred=0):
        """How many reads the next poll may bring."""
        self.now_ns += busy_ns + idle_ns
        oldest_ns = self.now_ns - waited_ns if waited_ns else 0
        return self.lag.turn(
            self.now_ns, idle_ns=idle_ns, ready=int(waited_ns > 0), oldest_ns=oldest_ns, deferred=deferred, ran=ran
        )

    def turns(self, for_ns, busy_ns, **more):
        for _ in range(for_ns // busy_ns):
            self.turn(busy_ns, **more)


@pytest.fixture
def turns():
    return Turns()


def test_short_turns_are_never_an_overload(turns):
    turns.turns(1000 * MS, 3 * MS, waited_ns=3 * MS)
    assert (turns.changes, turns.lag.is_deferring) == ([], False)
    assert turns.lag.lag_ns <= 3 * MS


def test_long_waits_are_one_after_the_time_and_not_before(turns):
    turns.turns(100 * MS, 20 * MS, waited_ns=20 * MS)
    assert not turns.lag.is_overloaded
    turns.turns(200 * MS, 20 * MS, waited_ns=20 * MS)
    assert (turns.changes, turns.lag.overloaded_count) == ([True], 1)
    assert 10 * MS < turns.lag.lag_ns <= 20 * MS


def test_one_long_turn_holds_reads_and_is_no_overload(turns):
    assert turns.turn(3 * MS) > 0
    assert turns.turn(15 * MS, ran=1) == 0
    turns.turns(300 * MS, 1 * MS)
    assert (turns.lag.is_deferring, turns.changes) == (False, [])


def test_holding_outlasts_a_quiet_moment(turns):
    turns.turn(50 * MS)
    turns.turns(50 * MS, 1 * MS)
    assert turns.lag.is_deferring


def test_it_is_over_below_the_low_watermark_and_not_between_the_two(turns):
    turns.turns(400 * MS, 20 * MS, waited_ns=20 * MS)
    turns.turns(2000 * MS, 6 * MS, waited_ns=6 * MS)
    assert turns.changes == [True]
    turns.turns(1000 * MS, 1 * MS)
    assert turns.changes == [True, False]
    assert 2000 * MS < turns.lag.overloaded_for_ns() < 3000 * MS


def test_reads_that_stay_held_are_an_overload_however_short_the_turns(turns):
    turns.turn(15 * MS)
    turns.turns(90 * MS, 2 * MS, deferred=5)
    assert turns.changes == []
    turns.turns(30 * MS, 2 * MS, deferred=5)
    assert turns.changes == [True]
    turns.turns(1000 * MS, 2 * MS, deferred=5)
    assert turns.changes == [True]
    turns.turns(150 * MS, 2 * MS)
    assert turns.changes == [True, False]


def test_idle_time_is_no_wait(turns):
    turns.turns(60 * MS, 20 * MS, waited_ns=20 * MS)
    before = turns.lag.lag_ns
    turns.turn(0, idle_ns=1000 * MS)
    assert turns.lag.lag_ns < before / 10


def test_a_long_turn_weighs_more_than_many_short_ones():
    long, short = Turns(), Turns()
    for _ in range(100):
        short.turn(MS // 100, waited_ns=MS // 100)
        long.turn(MS // 100, waited_ns=MS // 100)
    long.turn(50 * MS)
    short.turn(MS // 100)
    assert long.lag.lag_ns > 10 * MS > 100 * short.lag.lag_ns


def test_the_last_of_a_turn_has_waited_for_those_before_it(turns):
    turns.turn(40 * MS, ran=4)
    first = turns.lag.lag_ns
    alone = Turns()
    alone.turn(40 * MS, ran=1)
    assert first > 0
    assert alone.lag.lag_ns == 0


def test_standing_still_is_nobodys_wait(turns):
    turns.turn(2 * MS)
    turns.lag.stand_still()
    turns.now_ns += 10_000 * MS
    turns.turn(0)
    assert (turns.lag.is_deferring, turns.lag.lag_ns < 2 * MS) == (False, True)


def test_held_reads_are_let_go_one_at_a_time_until_their_cost_is_known(turns):
    turns.turn(15 * MS)
    assert turns.lag.let_go(0, 100) == 1


def test_cheap_reads_are_let_go_in_growing_numbers(turns):
    turns.turn(15 * MS)
    shares = []
    for _ in range(40):
        shares.append(turns.lag.let_go(0, 1000))
        turns.turn(MS // 100 * shares[-1], deferred=1000)
    assert (shares[0], shares[-1]) == (1, 128)
    assert shares == sorted(shares)


def test_dear_reads_are_let_go_singly(turns):
    turns.turn(15 * MS)
    for _ in range(20):
        assert turns.lag.let_go(0, 1000) == 1
        turns.turn(3 * MS, deferred=1000)


def test_reads_that_turn_out_dear_are_fewer_at_once(turns):
    test_cheap_reads_are_let_go_in_growing_numbers(turns)
    assert turns.lag.let_go(0, 1000) == 128
    turns.turn(100 * MS, deferred=1000)
    assert turns.lag.let_go(0, 1000) <= 3


def test_nothing_is_let_go_while_what_is_ready_has_waited_too_long(turns):
    turns.turn(15 * MS)
    turns.turn(5 * MS, waited_ns=5 * MS, deferred=10)
    assert turns.lag.let_go(1, 10) == 0
    # with nothing ready there is nothing to wait for
    assert turns.lag.let_go(0, 10) == 1


def test_no_more_are_let_go_than_are_held(turns):
    assert turns.lag.let_go(0, 0) == 0
    test_cheap_reads_are_let_go_in_growing_numbers(turns)
    assert turns.lag.let_go(0, 3) == 3


def test_a_poll_that_brought_too_much_begins_to_hold(turns):
    assert turns.turn(MS) > 0
    turns.lag.let_go(0, 1)
    assert turns.turn(MS) == 0


def test_a_report_that_raises_ends_nothing(caplog):
    turns = Turns()
    turns.lag.report = lambda: 1 / 0
    turns.turns(400 * MS, 20 * MS, waited_ns=20 * MS)
    assert turns.lag.is_overloaded
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_is_to_end_the_program_goes_through_a_report(kind):
    def report():
        raise kind

    turns = Turns()
    turns.lag.report = report
    with pytest.raises(kind):
        turns.turns(400 * MS, 20 * MS, waited_ns=20 * MS)


ENDLESS = 2**64 - 1


@pytest.fixture
def line():
    """A line of 100 that has stood for long; one takes 2 ms."""
    turns = Turns(defer_ns=50 * MS)
    let_go(turns, 40, 2 * MS)
    return turns


def let_go(turns, count, busy_ns):
    """One of the line in each turn."""
    for _ in range(count):
        turns.lag.let_go(0, 100)
        turns.turn(busy_ns, deferred=100)


def test_the_line_is_as_long_as_what_is_let_in_within_its_bound(line):
    assert line.lag.line() == (18, False, False)
    let_go(line, 20, 10 * MS)
    assert line.lag.line()[0] == 3
    let_go(line, 20, 2 * MS)
    assert line.lag.line()[0] > 15


@pytest.mark.parametrize("rest", [{"busy_ns": 200 * MS}, {"busy_ns": 0, "idle_ns": 200 * MS}])
def test_for_a_moment_after_a_stall_or_idle_time_the_line_is_not_full(line, rest):
    line.lag.let_go(0, 100)
    line.turn(**rest, deferred=100)
    assert line.lag.line()[0] == ENDLESS
    let_go(line, 6, 2 * MS)
    assert line.lag.line()[0] == ENDLESS
    let_go(line, 1, 2 * MS)
    assert 14 <= line.lag.line()[0] < 20


def test_what_is_dear_once_is_not_taken_for_usual_and_twice_it_is(line):
    let_go(line, 1, 20 * MS)
    line.turns(20 * MS, 1 * MS, deferred=100)
    assert line.lag.line()[0] >= 14
    let_go(line, 2, 20 * MS)
    line.turns(20 * MS, 1 * MS, deferred=100)
    assert line.lag.line()[0] < 6


def test_one_stall_leaves_the_line_as_it_is(line):
    """A machine that was busy with something else, once, is no reason to turn anybody away."""
    came_ns = line.now_ns
    let_go(line, 1, 500 * MS)
    let_go(line, 1, 11 * MS)
    assert line.lag.line(came_ns)[1:] == (False, False)
    # beside the stall what it has done since counts, and of the stall what is not late
    line.turns(30 * MS, 2 * MS, deferred=100)
    assert line.lag.line(came_ns)[1:] == (True, False)
    assert line.lag.line(line.now_ns - 41 * MS)[1:] == (False, False), "who came after it has not waited for it"


def test_callbacks_that_are_always_long_are_no_stalls():
    turns = Turns(defer_ns=50 * MS)
    let_go(turns, 10, 30 * MS)
    came_ns = turns.now_ns
    let_go(turns, 2, 30 * MS)
    assert turns.lag.line(came_ns)[1:] == (True, False)
    let_go(turns, 1, 30 * MS)
    assert turns.lag.line(came_ns)[1:] == (True, True)


def test_a_line_whose_oldest_is_too_late_takes_nobody_and_turns_round(line):
    assert line.lag.line(line.now_ns - 50 * MS) == (18, False, False)
    assert line.lag.line(line.now_ns - 51 * MS) == (0, True, False)
    assert line.lag.line(line.now_ns - 63 * MS) == (0, True, True)


def test_without_a_bound_the_line_is_endless_and_the_newest_go_first(turns):
    assert turns.lag.line() == (ENDLESS, True, False)
    assert turns.lag.line(turns.now_ns - 3600_000 * MS) == (ENDLESS, True, False)


@pytest.mark.parametrize("watermarks", [{"low_ns": 0}, {"low_ns": 11 * MS}, {"for_ns": -1}, {"defer_ns": -1}])
def test_watermarks_that_make_no_sense_are_refused(watermarks):
    with pytest.raises(ValueError, match="high_ns"):
        Turns(**watermarks)
