"""Probe, analyse and refine multimodal training data with Data-Juicer operators on Ray.

A run flows through the packages in this order: ``dataset`` (files to a sample table), ``stats``
(Data-Juicer operators over it), ``pools`` (low, middle and high buckets, random controls),
``trials`` (one reference training per pool and seed under Ray Tune), ``evaluation`` (metrics on a
trusted split), ``analysis`` (verdicts, interactions, scaling), ``recipes`` (thresholds, and
a recipe that Data-Juicer accepts), ``ledger`` (what it cost), ``reporting`` and ``tracking``.

Three tiers: ``workflows`` give the order of jobs, ``hooks`` the behaviour of each, and the packages
above the capabilities. ``records`` holds what crosses their borders: read it first.
"""

__version__ = "0.1.0"
