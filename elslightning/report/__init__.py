"""Reports: run directories in, pages and Markdown out."""

from elslightning.report.page import write_report
from elslightning.report.side_by_side import write_comparison

__all__ = ["write_comparison", "write_report"]
