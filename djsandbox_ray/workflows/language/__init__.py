"""Workflows as YAML: what may stand in a file, and whether it makes sense.

``workflow`` reads, ``checks`` checks it as a whole: ``jobs`` with their references, ``parameters``
of hooks and their ``types``, and ``repeat``: rounds and their targets.
"""
