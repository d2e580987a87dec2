"""Report: what it cost, what was observed, the page."""
