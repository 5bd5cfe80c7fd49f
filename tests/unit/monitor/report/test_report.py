"""The report: complete, self-contained, escaped, bounded in bytes, and tolerant of partial data."""

from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from penstock.monitor.history import History
from penstock.monitor.report import MOST_BYTES, Material, TraceError, parsed, read_trace, report_html
from penstock.monitor.report.charts import Chart, Series, drawn, nice_top
from penstock.monitor.report.markup import Markup, tag, text
from penstock.monitor.report.sampling import sampled
from tests.support import snapshots
from tests.support.scripted import ScriptedProcess
from tests.unit.monitor.report.samples import Answer, busy_trace, finding, step, trace

EVIL = "\"'><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>&lt;\x00\x1b[31m\ud800"
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "article", "h1", "h2", "h3"),
    *("p", "dl", "dt", "dd", "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "ol", "li", "b", "span"),
    *("details", "summary", "pre", "figure", "figcaption", "svg", "line", "path", "rect", "text"),
}


class Page(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.words += f" {data}"


def of_trace(document: Answer, source: str = "trace out.json") -> Material:
    return Material.of_trace(parsed(document), source, 1_700_000_002.0)


def times(count: int) -> Answer:
    return snapshots.times(*[0.01] * count)


def of_process(seconds: int = 5, name: str = "serve app:app", **evil: Any) -> Material:
    """Return the material of a process with all that a report shows."""
    word = evil.get("word", "http")
    material = Material(f"{name}, process 7", 1_700_000_002.0)
    for number in range(seconds):
        site = snapshots.site(snapshots.place(f"{word}.py", 41, word), live=number, created=10 * number)
        lane = snapshots.lane(word, completed={"ok": 5 * number}, workers_busy=1, run=times(number))
        loop = snapshots.loop(
            word, tasks={"live": 3, "created": 10 * number}, active_s=0.3 * number, idle_s=0.7 * number, sites=[site],
            lanes=[lane], delay=times(10 * number), sites_left_out=9,
        )  # fmt: skip
        gate = snapshots.gate(word, finished=100 * number, sheds={word: 3 * number}, inflight=4, limit_reason=word)
        about = {"name": name, "python": "3.13.0", "penstock": "0.1.0", "cpu_s": 0.5 * number, "threads": 9}
        sheds = {f"gate/{word}": 3 * number}
        material.history.add(snapshots.snapshot(97.0 + number, loops=[loop], gates=[gate], process=about, sheds=sheds))
    row = {"number": 7, "name": word, "site": snapshots.place(word), "state": "waiting", "age_s": 3.0, "steps": 4}
    frames = [snapshots.place(word), snapshots.place("/lib/asyncio/tasks.py", 1, "sleep")]
    material.tasks = {"tasks": [row], "total": 12}
    material.stacks = {"groups": [{"count": 4, "names": [word], "frames": frames, "awaits": word}]}
    return material


def test_a_report_of_a_process_has_what_is_wrong_first_and_all_its_tables() -> None:
    material = of_process()
    material.history.add_findings({"findings": [finding(loop="http", since_s=100.0)], "mark": 1})
    material.trace = parsed(busy_trace())
    page = Page(report_html(material))
    order = [page.words.index(title) for title in ("What is wrong", "Findings", "Charts", "Tables", "Process")]
    assert order == sorted(order)
    for word in ("the loop is blocked by", "Next step:", "2 s", "serve app:app, process 7", "http.py:41 in http"):
        assert word in page.words
    for caption in ("Loops", "Sites: where tasks are made", "Gates", "Lanes of executors", "Where tasks wait"):
        assert caption in page.words
    assert "11 more rows are left out" in page.words  # tasks
    assert "9 more rows are left out" in page.words  # sites
    assert page.tags["svg"] > 6


def test_a_healthy_process_is_said_to_be_healthy() -> None:
    assert "Nothing is wrong." in Page(report_html(of_process())).words


def test_a_finding_has_the_two_seconds_before_it() -> None:
    material = of_trace(busy_trace(findings=[finding(since_s=100.0)]))
    page = Page(report_html(material))
    # from 98 s to 100.35 s: a step of 2 ms in each 10 ms
    assert "236 recorded steps ran for 20 % of the time" in page.words
    assert "1 garbage collection took 10 ms; 1 job of executors ran" in page.words
    assert "Longest: io 200 ms" in page.words
    assert "-2 s" in page.words
    assert "the trace begins" not in page.words.lower()


def test_a_finding_close_to_the_begin_of_the_trace_says_so() -> None:
    page = Page(report_html(of_trace(busy_trace(1.0, findings=[finding(since_s=100.0)]))))
    assert "The trace begins 1.0 s before the finding" in page.words


@pytest.mark.parametrize("since_s", [3.0, 500.0])
def test_a_finding_outside_of_the_trace_has_no_timeline_and_a_reason(since_s: float) -> None:
    page = Page(report_html(of_trace(busy_trace(findings=[finding(since_s=since_s)]))))
    assert "the seconds before it are not known" in page.words


def test_a_finding_that_is_no_stall_is_shown_at_the_time_at_which_it_was_found() -> None:
    leak = finding("growing", "tasks of app.py:41: they pile up", since_s=3.0)
    # an attached process leaves out what follows the colon
    found = {"ph": "i", "pid": 1, "tid": 2, "ts": 100.2e6, "name": "finding: tasks of app.py", "cat": "finding"}
    document = busy_trace(findings=[leak])
    document["traceEvents"].append(found)
    material = of_trace(document)
    assert material.moment_s(leak) == pytest.approx(100.2)
    assert "not known" not in Page(report_html(material)).words


def test_what_is_wrong_is_named_from_a_trace_alone() -> None:
    found = of_trace(busy_trace(findings=[finding(since_s=100.0)])).diagnoses()
    assert found[0].kind == "blocked"
    assert found[0].place is not None


def test_a_trace_without_findings_names_the_stalls_that_it_recorded() -> None:
    stall = step(
        100.0, 0.35, "stall: a callback lasted 0.350 s in app.py:41 in main.<locals>.f (python, blocked)", "stall"
    )
    material = of_trace(trace(step(99.0), stall))
    assert material.diagnoses()[0].kind == "blocked"
    (found,) = material.findings
    assert found["site"] == {"file": "app.py", "line": 41, "function": "main.<locals>.f"}
    assert found["evidence"]["cause"] == "python"


def test_a_trace_without_a_fault_does_not_show_that_nothing_is_wrong() -> None:
    material = of_trace(busy_trace())
    assert material.verdict() == "the trace shows no fault"
    assert "The trace shows no fault." in Page(report_html(material)).words


def evil_material() -> Material:
    material = of_process(name=EVIL, word=EVIL)
    changes: Answer = {
        "kind": EVIL,
        "message": EVIL,
        "site": snapshots.place(EVIL, 1, EVIL),
        "task": EVIL,
        "loop": EVIL,
    }
    evil = finding(since_s=100.0) | changes | {"evidence": {EVIL: EVIL, "stack": [EVIL], "cause": EVIL}}
    stall = finding(since_s=100.0, message=EVIL, site=snapshots.place(EVIL, 1, EVIL), loop=EVIL)
    material.history.add_findings({"findings": [evil, stall], "mark": 2})
    material.seen_s = {("x",): 1.0}
    document = busy_trace(name=EVIL)
    document["traceEvents"][0]["args"]["name"] = EVIL
    document["otherData"] |= {"pid": EVIL, "python": EVIL}
    material.trace = parsed(document)
    material.missing.append(EVIL)
    return material


@pytest.mark.parametrize(
    "make", [evil_material, lambda: of_trace(busy_trace(findings=[finding(message=EVIL)], name=EVIL), EVIL)]
)
def test_text_of_the_program_is_never_markup(make: Any) -> None:
    html = report_html(make())
    page = Page(html)
    assert set(page.tags) <= ALLOWED
    assert page.open == []
    assert {
        name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "srcset", "style")
    } == set()
    # it is there as text, though
    assert "<script>alert(1)</script>" in page.words
    assert not any(letter in html for letter in "\x00\x1b\ud800")
    html.encode()


def test_a_report_refers_to_nothing_outside() -> None:
    html = report_html(of_process())
    page = Page(html)
    assert {"script", "link", "img", "iframe", "object", "a"} & set(page.tags) == set()
    assert not [value for _, value in page.attributes if "://" in (value or "")]
    assert "url(" not in html
    assert "@import" not in html
    assert any("default-src 'none'" in (value or "") for _, value in page.attributes)


def test_a_large_process_has_a_report_within_the_bound_and_says_what_is_left_out() -> None:
    material = of_process(2, word="x" * 5000)
    many = [finding(since_s=98.5 + number / 1000, message="y" * 5000, loop=f"l{number}") for number in range(1000)]
    material.history.add_findings({"findings": many, "mark": 1000})
    records = [step(98.0 + number / 10_000, 0.00005, f"{number} {'z' * 200}") for number in range(30_000)]
    material.trace = parsed(trace(*records))
    material.tasks = {"tasks": [material.tasks["tasks"][0]] * 500, "total": 100_000}
    html = report_html(material)
    assert len(html.encode()) <= MOST_BYTES
    words = Page(html).words
    assert "950 older findings left out" in words
    assert "99,950 more rows are left out" in words


def test_a_lower_bound_keeps_the_newest_findings() -> None:
    many = [finding(since_s=99.0 + number / 100, message=f"finding number {number}.") for number in range(40)]
    html = report_html(of_trace(busy_trace(findings=many)), most_bytes=60_000)
    assert len(html.encode()) <= 60_000
    words = Page(html).words
    assert "finding number 39." in words
    assert "finding number 0." not in words
    assert "older findings left out" in words


@pytest.mark.parametrize(
    "document",
    [
        {"traceEvents": []},
        [],
        [{"ph": "X"}, 3, {"ph": "X", "ts": "soon", "name": 5}, {"ph": "X", "ts": 1.0}],
        {"traceEvents": [{"ph": "M", "name": "process_name", "args": None}], "otherData": [1]},
        {
            "traceEvents": [],
            "otherData": {"findings": [3, {}, {"kind": "stall", "site": 4, "evidence": 5, "since_s": "x"}]},
        },
    ],
)
def test_a_foreign_trace_has_a_report(document: Any) -> None:
    assert "What is wrong" in Page(report_html(of_trace(document))).words


@pytest.mark.parametrize("content", ["", "{}", '"text"', "[" * 100_000, "\x00"])
def test_a_file_that_is_no_trace_is_one_clear_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(TraceError, match="no trace"):
        read_trace(path)


def test_a_partial_answer_alone_has_a_report() -> None:
    material = Material("process 7", 0.0, history=History())
    material.history.add(snapshots.partial())
    assert "What is wrong" in Page(report_html(material)).words


# --- samples of a process


def answers(**changes: Any) -> Answer:
    found = finding(since_s=100.0, loop="main")
    plain = {"findings": {"findings": [found], "mark": 1, "at_s": 100.2}, "tasks": {"tasks": [], "total": 0}}
    return plain | {"stacks": {"groups": []}, "trace": {"trace": busy_trace(), "events": 3}} | changes


def sampled_from(others: Answer, seconds: float = 0.02) -> Material:
    taken = [snapshots.snapshot(100.0 + number, loops=[snapshots.loop()]) for number in range(9)]
    opened_count = ScriptedProcess.opened_count
    material = sampled(lambda: ScriptedProcess(*taken, others=others), 7, seconds)
    assert ScriptedProcess.opened_count == opened_count
    return material


def test_a_process_is_sampled_with_its_findings_and_a_trace_of_the_same_time() -> None:
    material = sampled_from(answers())
    assert len(material.history) >= 2
    assert [each["kind"] for each in material.findings] == ["stall"]
    assert material.trace.loops[0].slices
    assert material.missing == []


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"trace": ConnectionError("process 7 has ended")}, "The trace could not be read: process 7 has ended."),
        ({"trace": {"partial": True, "reason": "the GIL was held"}}, "The trace could not be read: the GIL was held."),
        ({"trace": {"trace": 3}}, "The trace could not be read: no trace: it has no list of traceEvents."),
        ({"tasks": TimeoutError("no answer")}, "The tasks could not be read: no answer."),
        ({"findings": ConnectionError("it has ended")}, "The observation ended early: it has ended."),
    ],
)
def test_a_process_that_does_not_answer_all_has_a_report_that_says_so(
    changes: Answer, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.monitor.report.sampling.RETRY_AFTER_S", 0.0)
    material = sampled_from(answers(**changes))
    assert missing in material.missing
    assert missing in Page(report_html(material)).words


# --- the parts


def test_text_is_escaped_and_cut_and_markup_is_not_escaped_again() -> None:
    assert text("<a&b>") == "&lt;a&amp;b&gt;"
    assert text(text("<")) == "&lt;"
    assert len(text("x" * 5000)) == 401
    assert tag("p", "<", None, class_='"', data_x=None) == Markup('<p class="&quot;">&lt;</p>')


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.3, 0.5), (1, 1), (1.01, 2), (42, 50), (99, 100), (float("inf"), 1)]
)
def test_the_top_of_a_scale_is_a_round_number(value: float, top: float) -> None:
    assert nice_top(value) == pytest.approx(top)


def test_a_chart_without_two_moments_is_left_out() -> None:
    assert drawn(Chart("t", "s", "m", [Series("a", [(1.0, 2.0)])])) is None
    assert drawn(Chart("t", "s", "m", [])) is None
