"""Which of the combined pools help or hurt each other."""

from __future__ import annotations

from typing import Any

from djsandbox_ray.analysis.together.contrasts import Arms
from djsandbox_ray.analysis.together.interactions import (
    combinations_of,
    factorial,
)
from djsandbox_ray.analysis.together.surrogate import surrogate
from djsandbox_ray.errors import BadInput, SandboxError, StorageFailed
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.hooks.plans import plan_of
from djsandbox_ray.hooks.results import Scores, scored, scoring
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import InteractionRow, Interactions, Pools, SurrogateRow, Trials
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.reporting.together import interactions_notes, surrogate_notes
from djsandbox_ray.storage.rows import columns_of


class FindInteractions(Hook):
    """Writes ``interactions.csv`` and ``surrogate.csv``."""

    VERSION = 2
    SECTIONS = ("trials", "evaluation")

    def identity(self) -> Any:
        """How scores are made, the error rate, and the columns of the table."""
        return [scoring(self.config, "alpha"), columns_of(InteractionRow)]

    def run(self, pools: Pools | None, trials: Trials | None, first: Trials) -> Interactions | None:
        """Analyse the pyramid as a factorial, in the unit of the first study."""
        if pools is None or trials is None:
            return None
        seeds = plan_of(pools, self.config).seeds
        try:
            scores = scored(self.context, pools, trials, seeds, first)
        except (BadInput, StorageFailed):
            raise
        except SandboxError as error:
            self.context.caveat(f"interactions: cannot be judged: {error}")
            return None
        return self._written(pools, scores)

    def _written(self, pools: Pools, scores: Scores) -> Interactions | None:
        factors, combinations = combinations_of(pools.pools)
        known = {
            combination: scores.pools[name]
            for name, combination in combinations.items()
            if name in scores.pools
        }
        if len(factors) < 2 or not known:
            what = "a single pool" if known else "no combination with a completed trial"
            self.note(f"interactions: {what}: nothing that could interact")
            return None
        arms = Arms.of(
            known,
            scores.controls,
            draw_share=pools.draw_size / pools.size,
            bucket_share=pools.size / pools.eligible,
        )
        alpha = self.config.evaluation.alpha
        effects, predicted = factorial(arms, factors, alpha), surrogate(arms, factors, alpha)
        unit = Unit.of(self.config.evaluation.kind)
        for line in (
            *interactions_notes(effects.rows, unit),
            *effects.notes,
            *surrogate_notes(predicted.rows),
            *predicted.notes,
        ):
            self.note(f"interactions: {line}")
        path, effects_text = self.write_rows(InteractionRow, "interactions.csv", effects.rows)
        beside, predicted_text = self.write_rows(SurrogateRow, "surrogate.csv", predicted.rows)
        notes = (*effects.notes, *predicted.notes)
        identity = content_id("interactions", effects_text, predicted_text)
        return Interactions(identity, path, beside, notes)
