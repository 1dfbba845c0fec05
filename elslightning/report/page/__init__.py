"""The report of a run as a page: sections, tables, charts and the explorer."""
