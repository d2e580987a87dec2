"""The configured model, and what decides which trials a study consists of."""

from __future__ import annotations

from typing import Any

from djsandbox_ray.config import RunConfig
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.sections import Component
from djsandbox_ray.trials.family import FAMILIES, ModelFamily


def configured_family(config: RunConfig, model: Component | None = None) -> ModelFamily:
    """Return the family of the run's model, or of another, as it trains on the run's devices."""
    model = model or config.trials.model
    gpus = config.trials.resources.gpus_per_worker
    return FAMILIES.get(model.type)(model).resolved(gpus)


def study_identity(config: RunConfig) -> Any:
    """Return plain data that decides which trials a study consists of; not where they run."""
    trials = config.trials
    return [
        configured_family(config).identity(),
        trials.model_dump(mode="json", exclude={"model", "resources", "retries", "retry_diverged"}),
        [
            [EVALUATORS.get(metric.type)(metric).identity(), EVALUATORS.get(metric.type).VERSION]
            for metric in config.evaluation.metrics
        ],
        # Pools are given up by their scores.
        config.evaluation.model_dump(mode="json", include={"score", "aggregate"}),
    ]
