"""Probe, analyse and refine multimodal training data with Data-Juicer operators on Ray.

A run flows through the packages in this order: ``dataset`` (files to a sample table), ``stats``
(Data-Juicer operators over it), ``pools`` (low, middle and high buckets, random controls),
``trials`` (one reference training per pool and seed under Ray Tune), ``evaluation`` (metrics on a
trusted split), ``analysis`` (verdicts, interactions, scaling), ``recipes`` (thresholds, and
a recipe that Data-Juicer accepts), ``ledger`` (what it cost), ``reporting`` and ``tracking``.

Three tiers: ``workflows`` give the order of jobs, ``hooks`` the behaviour of each, and the packages
above the capabilities. ``records`` holds what crosses their borders: read it first.

In a notebook, ``import djsandbox_ray as dj`` gives ``dj.plan``, ``dj.run`` and ``dj.load`` (module
``notebook``); importing it does nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from djsandbox_ray.notebook import Plan, Result, example, load, plan, run

__version__ = "0.1.0"
__all__ = ["Plan", "Result", "__version__", "example", "load", "plan", "run"]


def __getattr__(name: str) -> Any:
    """Import what a notebook uses when it is used: the command line answers without it."""
    if name in __all__:
        return getattr(import_module("djsandbox_ray.notebook"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
