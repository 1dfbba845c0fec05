"""Reports: a run directory in, report.html and report.md out."""

from elslightning.report.page import write_report

__all__ = ["write_report"]
