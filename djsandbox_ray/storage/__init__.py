"""Where artifacts lie: ``store`` on any URL (``filesystems``), ``rows`` as CSV, ``cache`` on a node."""
