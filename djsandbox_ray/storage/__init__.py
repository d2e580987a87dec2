"""Where artifacts lie: ``store`` on any URL of ``filesystems``, ``rows`` in CSV, node ``cache``."""
