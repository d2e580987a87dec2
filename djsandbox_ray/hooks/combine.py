"""Combines the chosen pools in all ways, all cut to one size, beside controls of that size.

So a combination is trained and judged like a pool of the first study, by hooks of the same name.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any, Literal

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import Hook, Planned
from djsandbox_ray.hooks.plans import (
    CONFIRMATION,
    LEARNING_RATE,
    NOISE,
    TRIALS,
    combination_plan,
    combined_pools,
)
from djsandbox_ray.hooks.study import configured_family
from djsandbox_ray.hooks.writing import like, note_broken, write_pools
from djsandbox_ray.pools.combine import Pyramid, pyramid
from djsandbox_ray.pools.config import MIN_CONTROLS, WHOLE_BUCKET_CONTROLS
from djsandbox_ray.recipes.policy import marked
from djsandbox_ray.records import Choice, PoolKind, Pools, Statistics
from djsandbox_ray.stats.parts import StatisticColumns

_TAKEN = (
    *(TRIALS, NOISE, CONFIRMATION, LEARNING_RATE),
    *("repetition", "scaling", "search", "search_confirmation"),
)
"""What other studies are called."""


class CombinePools(Hook):
    """Writes ``combination_assignments.parquet`` and ``combination_pools.json``."""

    VERSION = 2
    SECTIONS = ("trials",)

    def identity(self) -> Any:
        """Policies, seeds, controls (those of the second look too), and the rows of a draw."""
        seeds = list(combination_plan(self.config, "combination").seeds)
        pools = self.config.pools.model_dump(mode="json", include={"controls", "draw_share"})
        policies = [policy.model_dump(mode="json") for policy in self.config.policies]
        return [pools, self.config.confirm.controls, policies, seeds, self._least]

    def ahead(
        self,
        pools: Pools | Planned,
        choice: Choice | Planned | None,
        controls: int | Literal["auto"] = "auto",
        name: str = "combination",
        **_: Any,
    ) -> Planned:
        """All 2^k - 1 ways, none of them dropped, and their controls."""
        self._check_controls(controls)
        return Planned(
            pools=combined_pools(choice, self.config, controls),
            draw_size=pools.draw_size,  # of a combination, at most that of a single pool
            study=combination_plan(self.config, _checked(name)),
        )

    def run(
        self,
        pools: Pools,
        choice: Choice | None,
        statistics: Statistics,
        minimum: int = 500,
        controls: int | Literal["auto"] = "auto",
        name: str = "combination",
    ) -> Pools | None:
        """Intersect the chosen pools in all 2^k - 1 ways, all cut to one size.

        Args:
            pools: of the first study.
            choice: which of them.
            statistics: that the policies are about.
            minimum: least number of rows; smaller combinations are dropped, and those whose draws
                would not fill a batch.
            controls: control arms, at least 5 (8 with whole buckets); ``auto``: as many as
                ``pools.controls`` says for so many pools.
            name: of one combination, where a workflow combines more than once: with an s the
                study's, and it begins the names of the files of pools and verdicts.

        Returns:
            None where nothing was chosen.

        Raises:
            BadInput: too few controls, a ``name`` that is no name, or see
                :func:`djsandbox_ray.pools.combine.pyramid`.
        """
        _checked(name)
        if choice is None or not choice.pools:
            self.note(f"{name}: no pools were chosen")
            return None
        self._check_controls(controls)
        made = self._combined(pools, choice, minimum, controls)
        row_ids = self.storage.read_table(pools.assignments, ["row_id"])["row_id"]
        columns = StatisticColumns(self.storage, statistics.statistics, len(row_ids))
        combined = like(
            pools,
            marked(made.pools, made.assignments, self.config.policies, columns),
            study=combination_plan(self.config, name),
            size=made.size,
            draw_size=made.draw_size,
        )
        combined = write_pools(
            self,
            replace(combined, not_testable=made.dropped),
            {"row_id": row_ids, **made.assignments},
            of=pools.id,
            name=name,
        )
        note_broken(self, combined, name)
        for dropped in made.dropped:
            self.note(f"{name}: {dropped.statistic} is dropped: {dropped.reason}")
        controls = sum(pool.kind is PoolKind.CONTROL for pool in combined.pools)
        self.note(
            f"{name}: {len(combined.pools) - controls} combinations and {controls} controls of "
            f"{combined.size} rows; a trial draws {combined.draw_size}"
        )
        return combined

    def _combined(
        self, pools: Pools, choice: Choice, minimum: int, controls: int | Literal["auto"]
    ) -> Pyramid:
        config = self.config
        columns = dict.fromkeys(p.column for p in pools.pools if p.id in choice.pools)
        table = self.storage.read_table(pools.assignments, ["row_id", *columns])
        first = sum(pool.kind is PoolKind.CONTROL for pool in pools.pools)
        return pyramid(
            pools,
            choice.pools,
            table["row_id"].to_numpy(),
            {column: table[column].to_numpy() for column in columns},
            minimum=max(minimum, min(self._least, pools.size)),  # a study says if that is too few
            controls=lambda count: (
                config.pools.control_count(count) if controls == "auto" else controls
            ),
            # The next numbers are those of the second look.
            first=first + config.confirm.controls,
            draw_share=config.pools.draw_share,
        )

    @property
    def _least(self) -> int:
        """Rows of a combination whose draws are large enough for the model."""
        trials = self.config.trials
        least = configured_family(self.config).least_rows(trials.budget)
        return math.ceil(least / self.config.pools.draw_share)

    def _check_controls(self, controls: int | Literal["auto"]) -> None:
        whole = self.config.pools.draw_share == 1
        least = WHOLE_BUCKET_CONTROLS if whole else MIN_CONTROLS
        if controls != "auto" and controls < least:
            why = " with whole buckets (pools.draw_share: 1.0)" if whole else ""
            raise BadInput(f"{controls} controls of combinations; at least {least} are needed{why}")


def _checked(name: str) -> str:
    """Refuse what would be a path, or would overwrite what another study has written."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or {name, f"{name}s"} & {*_TAKEN}:
        raise BadInput(
            f"name is {name!r}; lower-case letters, digits and _ are possible, beginning with a "
            f"letter, but neither it nor {name + 's'!r} may be one of {', '.join(_TAKEN)}"
        )
    return name
