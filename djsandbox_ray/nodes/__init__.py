"""Ray's nodes: ``connection`` to them, ``kinds`` asked for, ``fitting`` groups, ``waiting`` for room."""
