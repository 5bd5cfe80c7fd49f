"""The report: one self-contained HTML file about a process, made from samples of it or from a trace."""

from penstock.monitor.report.document import MOST_BYTES, report_html
from penstock.monitor.report.material import Material
from penstock.monitor.report.trace import Trace, TraceError, parsed, read_trace

__all__ = ["MOST_BYTES", "Material", "Trace", "TraceError", "parsed", "read_trace", "report_html"]
