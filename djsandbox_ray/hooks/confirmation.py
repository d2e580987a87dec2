"""A second look at the pools that were called better: fresh seeds beside fresh controls.

The best of many looks better than it is. What is measured again, after the choice, is not biased
by it.
"""

from __future__ import annotations

from typing import Any

from djsandbox_ray.analysis.verdicts.second_look import confirm, selected
from djsandbox_ray.hooks.hook import Hook, Planned
from djsandbox_ray.hooks.plans import CONFIRMATION, confirmation_plan, plan_of
from djsandbox_ray.hooks.results import ranked_again, scoring
from djsandbox_ray.hooks.writing import like, write_pools
from djsandbox_ray.identity import content_id
from djsandbox_ray.pools.arms import second_look
from djsandbox_ray.records import (
    Confirmation,
    ConfirmationRow,
    Pools,
    Ranking,
    RankingRow,
    Trials,
)


class ChooseForConfirmation(Hook):
    """Writes ``confirmation_assignments.parquet`` and ``confirmation_pools.json``."""

    VERSION = 2
    SECTIONS = ("trials",)

    def identity(self) -> Any:
        """The section ``confirm``, and the seeds."""
        seeds = confirmation_plan(self.config).seeds
        return [self.config.confirm.model_dump(mode="json"), list(seeds)]

    def ahead(self, **_: Any) -> Planned:
        """As many pools as may be chosen, and the fresh controls; nothing is trained."""
        confirm = self.config.confirm
        most = confirm.top + confirm.controls if confirm.top else 0
        return Planned(pools=most, study=confirmation_plan(self.config))

    def run(self, pools: Pools, ranking: Ranking) -> Pools | None:
        """Set the best of the pools that were called better beside fresh controls, if any were."""
        chosen = selected(self.rows(RankingRow, ranking), self.config.confirm.top)
        if not chosen:
            self.note("confirmation: no pool was called better")
            return None
        table = self.storage.read_table(pools.assignments)
        codes = table[pools.pools[0].column].to_numpy()
        look = second_look(pools, chosen, codes, self.config.confirm.controls)
        kept = [pool.column for pool in look.pools if pool.column not in look.assignments]
        made = like(pools, look.pools, study=confirmation_plan(self.config))
        columns = {name: table[name] for name in ("row_id", *dict.fromkeys(kept))}
        columns |= look.assignments
        return write_pools(self, made, columns, of=pools.id, name=CONFIRMATION)


class Confirm(Hook):
    """Writes ``confirmation.csv``."""

    VERSION = 2
    SECTIONS = ("trials", "evaluation")

    def identity(self) -> Any:
        """How scores are made, and the error rate."""
        return scoring(self.config, "alpha")

    def run(
        self, first: Trials, ranking: Ranking, pools: Pools | None, trials: Trials | None
    ) -> Confirmation | None:
        """Judge the chosen pools again, by the second study alone, in the unit of the first."""
        if pools is None or trials is None:
            return None
        plan = plan_of(pools, self.config)
        second = ranked_again(self.context, pools, trials, plan, first=first)
        if second is None:
            return None
        rows = confirm(self.rows(RankingRow, ranking), second)
        path, text = self.write_rows(ConfirmationRow, "confirmation.csv", rows)
        better = [row.confirmed for row in rows if row.verdict == "better"]
        id = content_id("confirmation", text)
        return Confirmation(id, path, len(better), max(better, default=0.0))
