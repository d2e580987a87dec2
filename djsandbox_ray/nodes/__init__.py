"""Ray's nodes: ``connection``, ``kinds`` of them, ``fitting`` of groups, ``waiting`` for room."""
