"""Turns verdicts into thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import SerializeAsAny, ValidationError

from djsandbox_ray.analysis.together.winner import Winner, winner
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.identity import content_id
from djsandbox_ray.pools.cuts import EXCLUDED
from djsandbox_ray.recipes.policy import broken
from djsandbox_ray.recipes.refiner import REFINERS, Evidence, ProposedRange, Refiner, narrowed
from djsandbox_ray.records import (
    Confirmation,
    ConfirmationRow,
    Dataset,
    Pool,
    PoolKind,
    Pools,
    Range,
    Ranking,
    RankingRow,
    Statistics,
    Thresholds,
)
from djsandbox_ray.settings.sections import Component, Section, component
from djsandbox_ray.settings.yaml_input import problems
from djsandbox_ray.stats.parts import StatisticColumns
from djsandbox_ray.storage.store import Storage

_FEEDBACK: dict[str, Any] = {"type": "model_feedback"}


class _Method(Section):
    method: Annotated[SerializeAsAny[Component], component(REFINERS)]


@dataclass(frozen=True)
class _Studies:
    """What was trained, read once."""

    pools: Pools | None
    ranking: list[RankingRow]
    confirmation: list[ConfirmationRow] | None
    combinations: Pools | None
    combination_ranking: list[RankingRow]


class Refine(Hook):
    """Writes ``thresholds/<id>.json``."""

    VERSION = 1

    def identity(self) -> Any:
        """The section ``policies``, and the ranges that pools are within."""
        policies = [policy.model_dump(mode="json") for policy in self.config.policies]
        return [policies, [asdict(item) for item in self.config.pools.ranges]]

    def run(
        self,
        dataset: Dataset,
        statistics: Statistics,
        pools: Pools | None = None,
        ranking: Ranking | None = None,
        confirmation: Confirmation | None = None,
        combinations: Pools | None = None,
        combination_ranking: Ranking | None = None,
        method: dict[str, Any] = _FEEDBACK,
    ) -> Thresholds | None:
        """Choose the pool to stand on, and have the refiner ``method`` propose ranges.

        Pools that break a policy cannot be chosen. Without trials (no ``pools``) there is no
        choice, and only a method that names its statistics can propose something.

        Raises:
            BadInput: ``method`` cannot be read, or cannot propose anything.
        """
        refiner = _refiner(method)
        columns = StatisticColumns(self.storage, statistics.statistics, dataset.rows)
        studies = _Studies(
            pools,
            self.rows(RankingRow, ranking),
            None if confirmation is None else self.rows(ConfirmationRow, confirmation),
            combinations,
            self.rows(RankingRow, combination_ranking),
        )
        chosen, refused = self._choose(studies, columns)
        if chosen is None and ranking is not None and refiner.needs_choice:
            self.note("refine: no thresholds: no pool is better than the controls")
            return None
        evidence = Evidence(
            columns,
            pools,
            studies.ranking,
            studies.confirmation or (),
            combinations,
            studies.combination_ranking,
            chosen.parts if chosen else (),
            self._eligible(pools),
        )
        ranges = refiner.propose(evidence)
        if not ranges:
            self.note("refine: no thresholds: every part of the chosen statistics is kept")
            return None
        if pools is not None:
            # The pool was chosen among rows that were kept before: they are what it stands for.
            ranges = narrowed(self.config.pools.ranges, ranges)
        return self._write(statistics, method, refiner, ranges, chosen, refused)

    def _choose(
        self, studies: _Studies, columns: StatisticColumns
    ) -> tuple[Winner | None, dict[str, list[str]]]:
        """Return the best pool that breaks no policy, and what the better ones before it break."""
        refused: dict[str, list[str]] = {}
        # A single pool that was trained again at the size of combinations is that of these.
        groups = [group for group in (studies.pools, studies.combinations) if group]
        known = {pool.id: (pool, group) for group in groups for pool in group.pools}
        while True:
            found = winner(
                studies.ranking,
                studies.confirmation,
                studies.combination_ranking,
                studies.combinations.pools if studies.combinations else (),
                refused,
            )
            if found is None:
                return None, refused
            pool, group = known[found.pool]
            mask = _members(self.storage, group, pool)
            if any(known[part][0].statistic is None for part in found.parts):
                # A builder's pool: no thresholds stand for its rows.
                refused[found.pool] = ["it is no part of a statistic: there are no thresholds"]
                self.note(f"refine: {found.pool}: {refused[found.pool][0]}")
                continue
            if not (lines := broken(self.config.policies, columns, mask)):
                return found, refused
            refused[found.pool] = lines
            for line in lines:
                self.note(f"refine: {found.pool} breaks a policy: {line}")

    def _eligible(self, pools: Pools | None) -> NDArray[np.bool_] | None:
        """Return the rows that pools are made of."""
        if pools is None:
            return None
        column = next(pool.column for pool in pools.pools if pool.kind is PoolKind.BUCKET)
        codes = self.storage.read_table(pools.assignments, [column])[column].to_numpy()
        return np.asarray(codes != EXCLUDED)

    def _write(
        self,
        statistics: Statistics,
        method: Mapping[str, Any],
        refiner: Refiner,
        ranges: tuple[ProposedRange, ...],
        chosen: Winner | None,
        refused: Mapping[str, list[str]],
    ) -> Thresholds:
        stands = chosen if refiner.trained else None
        content: dict[str, Any] = {
            "method": dict(method),
            "ranges": [
                {"statistic": r.statistic, "low": r.low, "high": r.high, "origin": r.origin}
                for r in ranges
            ],
            "pool": stands.pool if stands else "",
            "parts": list(chosen.parts) if chosen else [],
            "why": chosen.why if chosen else "no trial was asked",
            "refused": dict(refused),
        }
        id = content_id("thresholds", statistics.id, content)
        path = self.write_sealed(f"thresholds/{id}.json", {"id": id, **content})
        by = f" on {chosen.pool} ({chosen.why})" if chosen else ""
        self.note(f"refine: {', '.join(r.text for r in ranges)}")
        plain = tuple(Range(r.statistic, r.low, r.high) for r in ranges)
        return Thresholds(id, plain, f"{method['type']}{by}", content["pool"], path)


def _refiner(method: Mapping[str, Any]) -> Refiner:
    try:
        read = _Method.model_validate({"method": method})
    except ValidationError as error:
        lines = problems(error, _Method, {"method": method})
        raise BadInput("refine: " + "\n".join(str(line) for line in lines)) from None
    return REFINERS.get(read.method.type)(read.method)


def _members(storage: Storage, pools: Pools, pool: Pool) -> NDArray[np.bool_]:
    """Return which rows of the dataset a pool holds."""
    codes = storage.read_table(pools.assignments, [pool.column])[pool.column].to_numpy()
    return np.asarray(codes == pool.code)
