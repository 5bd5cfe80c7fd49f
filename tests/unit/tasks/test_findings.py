"""Findings: kept within bounds, all of them counted."""

import logging
import threading

import pytest

from penstock.tasks.finding import Finding
from penstock.tasks.finding_log import FindingLog
from penstock.tasks.place import Place
from tests.support.clocks import HandClock

HERE = Place("app.py", 10, "handler")
THERE = Place("app.py", 20, "other")


def finding(kind: str = "stall", site: Place | None = HERE, message: str = "") -> Finding:
    return Finding(kind, message or f"a {kind}", site)


def test_the_newest_are_kept_and_all_are_counted() -> None:
    log = FindingLog(limit=3, per_minute=100)
    for number in range(10):
        assert log.add(finding(message=str(number)))
    assert [each.message for each in log.all()] == ["7", "8", "9"]
    assert log.counts() == {"stall": 10}
    assert log.dropped == 0


def test_beyond_its_rate_a_site_is_counted_and_dropped() -> None:
    log = FindingLog(per_minute=2)
    told: list[Finding] = []
    log.listen(told.append)
    assert [log.add(finding()) for _ in range(5)] == [True, True, False, False, False]
    assert len(log.all()) == len(told) == 2
    assert log.counts() == {"stall": 5}
    assert log.dropped == 3


def test_each_kind_and_each_site_has_a_rate_of_its_own() -> None:
    log = FindingLog(per_minute=1)
    assert log.add(finding("stall", HERE))
    assert log.add(finding("stall", THERE))
    assert log.add(finding("hung", HERE))
    assert log.add(finding("hung", None))
    assert not log.add(finding("hung", None))


def test_after_a_minute_a_site_may_be_reported_again() -> None:
    clock = HandClock(0.0)
    log = FindingLog(per_minute=1, clock=clock)
    assert log.add(finding())
    clock.now_s = 59.9
    assert not log.add(finding())
    clock.now_s = 60.0
    assert log.add(finding())


def test_the_rates_of_a_million_sites_take_bounded_memory() -> None:
    from penstock.tasks.finding_log import MOST_KEYS

    log = FindingLog(per_minute=1)
    logging.getLogger("penstock.tasks.stall").disabled = True
    try:
        for line in range(MOST_KEYS * 3):
            log.add(finding(site=Place("app.py", line, "f")))
    finally:
        logging.getLogger("penstock.tasks.stall").disabled = False
    assert len(log._rates) == MOST_KEYS


def test_a_mark_gives_the_findings_after_it() -> None:
    log = FindingLog(limit=4, per_minute=100)
    log.add(finding(message="before"))
    mark = log.mark()
    assert list(log.since(mark)) == []
    log.add(finding(message="one"))
    log.add(finding(message="two"))
    assert [each.message for each in log.since(mark)] == ["one", "two"]
    for number in range(5):
        log.add(finding(message=str(number)))
    assert [each.message for each in log.since(mark)] == ["1", "2", "3", "4"]


def test_a_listener_that_raises_is_logged_and_removed(caplog: pytest.LogCaptureFixture) -> None:
    log = FindingLog()
    heard: list[str] = []

    def bad(found: Finding) -> None:
        heard.append("bad")
        raise ValueError("no")

    log.listen(bad)
    log.listen(lambda found: heard.append("good"))
    assert log.add(finding())
    assert log.add(finding())
    assert heard == ["bad", "good", "good"]
    assert "raised and is not called again" in caplog.text


def test_a_listener_listens_once_and_until_it_is_taken_off() -> None:
    log = FindingLog()
    heard: list[Finding] = []
    log.listen(heard.append)
    log.listen(heard.append)
    log.add(finding())
    log.unlisten(heard.append)
    log.unlisten(heard.append)
    log.add(finding())
    assert len(heard) == 1


def test_a_listener_may_add_a_finding() -> None:
    log = FindingLog()
    log.listen(lambda found: found.kind == "stall" and log.add(finding("hung")))
    log.add(finding("stall"))
    assert log.counts() == {"stall": 1, "hung": 1}


def test_a_finding_is_a_log_record_of_its_kind(caplog: pytest.LogCaptureFixture) -> None:
    FindingLog().add(finding("hung", message="a task is old"))
    [record] = [each for each in caplog.records if each.name == "penstock.tasks.hung"]
    assert record.getMessage() == "a task is old"


def test_threads_lose_no_count() -> None:
    log = FindingLog(per_minute=50)
    threads = [
        threading.Thread(target=lambda site=site: [log.add(finding(site=site)) for _ in range(500)])
        for site in (HERE, THERE, HERE, THERE)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.counts() == {"stall": 2000}
    assert len(log.all()) + log.dropped == 2000
    assert len(log.all()) == 100


@pytest.mark.parametrize(("limit", "per_minute"), [(0, 1), (1, 0)])
def test_bounds_of_nothing_are_refused(limit: int, per_minute: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FindingLog(limit=limit, per_minute=per_minute)
