"""Tier 1, the order of a run: ordered job lists in YAML and the one loop that runs them.

``workflow.py`` reads a job list and checks it before anything runs, ``runner.py`` runs it, job by
job, skipping what is done. The built-in workflows lie beside them (``single_op.yaml``).
"""
