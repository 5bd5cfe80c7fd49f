"""A worker's report of its start reaches its parent, with any bytes and of any length."""

import logging
from types import SimpleNamespace

import pytest

pytest.importorskip("uvicorn")

from penstock.integrations.uvicorn.server import FAILED, MAX_REPORT_BYTES, report
from penstock.integrations.uvicorn.workers import StartReports


@pytest.mark.parametrize(
    "reason", ["ü" * MAX_REPORT_BYTES, "\udcfc.py is not there"], ids=["cut in a character", "name"]
)
def test_a_reason_that_is_no_whole_text_is_logged_and_ends_no_parent(
    caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    reports = StartReports()
    with reports.writer, reports._reader:
        assert report(SimpleNamespace(start_reports=reports.writer), FAILED, reason)
        with caplog.at_level(logging.ERROR, "uvicorn.error"):
            reports.read()
    [record] = caplog.records
    assert record.message[:3] == ("üüü" if reason[0] == "ü" else "\\ud")
