"""The report's document: one HTML file that needs no other, no script and no network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock import __version__
from penstock.monitor.report import series, tables
from penstock.monitor.report.charts import all_drawn
from penstock.monitor.report.findings import all_findings, clock_text
from penstock.monitor.report.markup import Markup, joined, tag
from penstock.monitor.report.style import STYLE
from penstock.monitor.texts import count_text, duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.monitor.report.material import Material
    from penstock.monitor.rules import Diagnosis

__all__ = ["MOST_BYTES", "report_html"]

# mail servers accept an attachment of this size
MOST_BYTES = 5_000_000
MOST_FINDINGS = 50
MOST_DIAGNOSES = 20
# the browser loads nothing and runs nothing, whatever the text of a name
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def report_html(material: Material, most_bytes: int = MOST_BYTES) -> str:
    """Return the report as HTML of at most `most_bytes` in UTF-8; the newest findings are kept."""
    most_findings, most_tasks = MOST_FINDINGS, tables.MOST_TASKS
    while True:
        page = _page(material, most_findings, most_tasks)
        if len(page.encode()) <= most_bytes or not most_findings:
            return page
        most_findings, most_tasks = most_findings // 2, most_tasks // 2


def _page(material: Material, most_findings: int, most_tasks: int) -> str:
    found = material.diagnoses()
    title = f"penstock report: {material.source}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", STYLE),
    )
    body = tag(
        "body",
        tag("header", tag("h1", material.source), tag("p", _about(material))),
        tag(
            "main",
            _section("What is wrong", _diagnoses(found, material.verdict())),
            _section("Findings", all_findings(material, most_findings)),
            _section("Charts", _charts(material)),
            _section("Tables", *_tables(material, most_tasks)),
            _section("Process", _process(material)),
        ),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _section(title: str, *children: Markup | None) -> Markup | None:
    shown = joined(*children)
    return tag("section", tag("h2", title), shown) if shown else None


def _about(material: Material) -> str:
    observed = f", observed for {duration(sum(material.history.gaps_s()))}" if len(material.history) > 1 else ""
    return f"made {clock_text(material.made_wall_time_s)} by penstock {__version__}{observed}"


def _diagnoses(found: Sequence[Diagnosis], verdict: str) -> Markup:
    if not found:
        return tag("p", f"{verdict[:1].upper()}{verdict[1:]}.", class_="verdict good")
    items = [_diagnosis(each) for each in found[:MOST_DIAGNOSES]]
    left_out = len(found) - MOST_DIAGNOSES
    more = tag("p", f"{count_text(left_out, 'other')} left out.", class_="left-out") if left_out > 0 else None
    return joined(tag("ol", *items, class_="verdict"), more)


def _diagnosis(each: Diagnosis) -> Markup:
    sign = tag("span", each.severity, class_=f"severity {each.severity}")
    return tag("li", sign, " ", tag("b", each.sentence), ". ", tag("span", f"Next step: {each.next_step}."))


def _charts(material: Material) -> Markup | None:
    history, trace = material.history, material.trace
    charts = list(series.of_history(history)) if len(history) > 1 else list(series.of_trace(trace))
    return all_drawn(charts) if charts else None


def _tables(material: Material, most_tasks: int) -> list[Markup | None]:
    sampled = tables.of_figures(material.history.over(3600.0)) if material.history.latest is not None else []
    return [*sampled, *tables.of_tasks(material, most_tasks), *tables.of_trace(material.trace)]


def _process(material: Material) -> Markup | None:
    facts, trace = None, material.trace
    if material.history.latest is not None:
        facts = tables.process_facts(material.history.over(3600.0).process)
    elif trace.pid:
        pairs = (("pid", trace.pid), ("Python", trace.python))
        facts = tag("dl", *(tag("div", tag("dt", term), tag("dd", value)) for term, value in pairs), class_="facts")
    notes = [tag("p", each, class_="left-out") for each in material.missing]
    if trace.is_cut:
        notes.append(tag("p", "The trace had no room for older events.", class_="left-out"))
    return joined(facts, *notes)
