"""Whether a model family, what it is given and the evaluators go together."""

from __future__ import annotations

from collections.abc import Sequence

from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.sections import Component
from djsandbox_ray.trials.config import TrialsConfig
from djsandbox_ray.trials.family import FAMILIES


def misfits(trials: TrialsConfig, metrics: Sequence[Component]) -> list[str]:
    """Return what contradicts, each with its place in the configuration.

    Args:
        trials: the section of that name.
        metrics: the evaluators.
    """
    family, name, resources = FAMILIES.get(trials.model.type), trials.model.type, trials.resources
    found = []
    if family.LAUNCHES and resources.workers > 1:
        found.append(
            f"trials.resources.workers: the model {name!r} starts its processes itself: give one "
            "worker all CPUs and GPUs (workers: 1)"
        )
    if not family.LAUNCHES and resources.gpus_per_worker > 1:
        found.append(
            f"trials.resources.gpus_per_worker: at most 1 for the model {name!r}; more GPUs take "
            "more workers"
        )
    for index, metric in enumerate(metrics):
        reads = EVALUATORS.get(metric.type).READS
        if reads not in family.OFFERS:
            fitting = [one for one in EVALUATORS if EVALUATORS.get(one).READS in family.OFFERS]
            found.append(
                f"evaluation.metrics[{index}].type: {metric.type!r} reads {reads}, but the model "
                f"{name!r} offers {' and '.join(family.OFFERS)} (fitting: {', '.join(fitting)})"
            )
    return found
