"""Writes the recipe for Data-Juicer and the evidence for it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from djsandbox_ray import __version__
from djsandbox_ray.dataset.source import content_of
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.hooks.results import scoring
from djsandbox_ray.identity import content_id
from djsandbox_ray.recipes.evidence import (
    PoolFindings,
    about_second,
    about_several,
    caveats,
    retention,
)
from djsandbox_ray.recipes.export import recipe_document, recipe_yaml, with_scorer
from djsandbox_ray.recipes.policy import broken
from djsandbox_ray.recipes.ranges import applied, kept
from djsandbox_ray.records import (
    Confirmation,
    ConfirmationRow,
    Dataset,
    Ledger,
    Pool,
    PoolKind,
    Pools,
    Ranking,
    RankingRow,
    Recipe,
    Scorer,
    Statistics,
    Thresholds,
)
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.operators import OperatorSpec, parse_process, resolve_paths
from djsandbox_ray.stats.parts import StatisticColumns

Row = TypeVar("Row", RankingRow, ConfirmationRow)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class WriteRecipe(Hook):
    """Writes ``recipes/<name>.yaml`` and ``recipes/<name>.evidence.json``."""

    VERSION = 3

    def identity(self) -> Any:
        """The operators as given, the policies, and what the effect is measured in and within."""
        return [
            self.config.operators,
            [policy.model_dump(mode="json") for policy in self.config.policies],
            None if self.config.measuring is None else scoring(self.config, "alpha"),
            [asdict(item) for item in self.config.pools.ranges],
        ]

    def run(
        self,
        dataset: Dataset,
        statistics: Statistics,
        scorer: Scorer | None = None,
        pools: Pools | None = None,
        thresholds: Thresholds | None = None,
        ranking: Ranking | None = None,
        confirmation: Confirmation | None = None,
        combinations: Pools | None = None,
        combination_ranking: Ranking | None = None,
        ledger: Ledger | None = None,
        name: str = "",
    ) -> Recipe | None:
        """Write the recipe of some thresholds; by default it is named like the run.

        A recipe that breaks a policy gets its evidence, which says so, and no YAML.

        Raises:
            BadInput: a name that is no file name, or thresholds that keep no row or that the
                operators cannot apply.
        """
        if thresholds is None:
            return None
        name = name or self.config.name
        if not _NAME.fullmatch(name):
            raise BadInput(f"recipe: name {name!r}: letters, digits, '.', '_' and '-' are allowed")
        operators = self._operators(scorer)
        ranges = applied(operators, thresholds.ranges)
        columns = StatisticColumns(self.storage, statistics.statistics, dataset.rows)
        mask = kept(columns, ranges)
        if not mask.any():
            raise BadInput(f"recipe: no row has {' and '.join(r.text for r in ranges)}")
        findings, parts = self._findings(
            thresholds, pools, ranking, confirmation, combinations, combination_ranking
        )
        keeps = retention(columns, ranges, mask)
        forbidden = broken(self.config.policies, columns, mask)
        evidence = {
            **self._evidence(dataset, thresholds, findings, parts),
            "retention": keeps.to_json(),
            "policies": [policy.model_dump(mode="json") for policy in self.config.policies],
            "broken_policies": forbidden,
            "scorer": scorer.path if scorer else None,
            "caveats": [
                *caveats(findings, parts=parts, wanted=thresholds.ranges, retention=keeps),
                *(self._beyond() if pools else ()),
                *(
                    about_several(operators, (r.statistic for r in ranges))
                    if self._may_have_several()
                    else ()
                ),
                *about_second(operators, (r.statistic for r in ranges)),
            ],
        }
        id = content_id("recipe", evidence)  # what the run cost is no part of what it found
        evidence["cost"] = self.storage.read_sealed(ledger.path)["total"] if ledger else None
        document = recipe_document(name, operators, thresholds.ranges)
        path = self._write(name, document, evidence)
        evidence_path = self.path(f"recipes/{name}.evidence.json")
        effect, share = findings.effect, keeps.share
        confirmed = findings.confirmed is not None and effect == findings.confirmed.confirmed
        return Recipe(id, path, evidence_path, share, effect, confirmed, tuple(forbidden))

    def _may_have_several(self) -> bool:
        """Say whether a sample may have several media, or none."""
        return content_of(self.config.dataset) in ("conversations", "any")

    def _beyond(self) -> list[str]:
        """Say what the effect is measured against, where only a part of the data was probed."""
        if not (within := self.config.pools.ranges):
            return []
        probed = " and ".join(item.text for item in within)
        return [
            f"Only rows with {probed} were probed: the effect is what the recipe adds to keeping "
            "those, not its effect on the whole dataset."
        ]

    def _operators(self, scorer: Scorer | None) -> list[OperatorSpec]:
        folder = self.storage.uri(scorer.path) if scorer else None
        specs = parse_process(with_scorer(self.config.operators, folder))
        return [resolve_paths(spec) for spec in specs]

    def _findings(
        self,
        thresholds: Thresholds,
        pools: Pools | None,
        ranking: Ranking | None,
        confirmation: Confirmation | None,
        combinations: Pools | None,
        combination_ranking: Ranking | None,
    ) -> tuple[PoolFindings, list[Pool]]:
        """Return what is known of the pool behind the thresholds, and the pools it is made of."""
        first = {pool.id: pool for pool in pools.pools} if pools else {}
        combined = {pool.id: pool for pool in combinations.pools} if combinations else {}
        pool = first.get(thresholds.pool) or combined.get(thresholds.pool)
        if pool is None:
            return self._searched(thresholds), []
        findings = PoolFindings(
            pool=pool,
            first=_of(pool, self.rows(RankingRow, ranking)),
            confirmed=_of(pool, self.rows(ConfirmationRow, confirmation)),
            # Single pools are among the combinations, too, at another size.
            combined=_of(pool, self.rows(RankingRow, combination_ranking))
            if len(pool.parts) > 1
            else None,
            combinations=sum(p.kind is PoolKind.BUCKET for p in combined.values()),
        )
        return findings, [first[part] for part in pool.parts or (pool.id,) if part in first]

    def _searched(self, thresholds: Thresholds) -> PoolFindings:
        """Return what the search that found the thresholds says of them, if one did."""
        if not thresholds.pool:
            return PoolFindings()
        row = self.storage.read_sealed(thresholds.path).get("confirmed")
        if row is None:
            return PoolFindings(searched=True)
        known: dict[str, Any] = {
            key: math.nan if value is None else value for key, value in row.items()
        }
        return PoolFindings(confirmed=ConfirmationRow(**known), searched=True)

    def _evidence(
        self, dataset: Dataset, thresholds: Thresholds, findings: PoolFindings, parts: list[Pool]
    ) -> dict[str, Any]:
        evaluation, pool = self.config.measuring, findings.pool
        return {
            "dataset": {"id": dataset.id, "rows": dataset.rows},
            "versions": {"djsandbox_ray": __version__, "data_juicer": load().version},
            "thresholds": {
                "id": thresholds.id,
                "source": thresholds.source,
                "path": thresholds.path,
            },
            "pool": {
                "id": thresholds.pool,
                "hash": pool.hash if pool else None,
                "rows": pool.size if pool else None,
                "parts": [{"id": part.id, "hash": part.hash} for part in parts],
            }
            if thresholds.pool
            else None,
            "effect": {
                **findings.to_json(),
                # What was not measured has no unit.
                "unit": evaluation and str(evaluation.kind),
                "confidence": evaluation and 1 - evaluation.alpha,
            },
        }

    def _write(self, name: str, document: dict[str, Any], evidence: dict[str, Any]) -> str:
        """Write the evidence, and the YAML unless a policy forbids it; return the YAML's path."""
        storage, progress = self.storage, self.context.progress
        folder = self.path("recipes")
        path = f"{folder}/{name}.yaml"
        evidence_path = f"{folder}/{name}.evidence.json"
        if evidence["broken_policies"]:
            storage.remove(path)  # an earlier one of the same name must not be taken for this
            storage.write_sealed(evidence_path, {"recipe": None, **evidence})
            for line in evidence["broken_policies"]:
                progress.note(f"recipe: not exported: {line}")
            return ""
        storage.write_sealed(evidence_path, {"recipe": path, **evidence})
        facts = _facts(name, evidence)
        version = evidence["versions"]["data_juicer"]
        text = recipe_yaml(document, facts, file=f"{name}.yaml", version=version)
        storage.write_bytes(path, text.encode())
        progress.note(f"recipe: {storage.shown}/{path}")
        return path


def _of(pool: Pool, rows: Sequence[Row]) -> Row | None:
    return next((row for row in rows if row.pool == pool.id), None)


def _facts(name: str, evidence: dict[str, Any]) -> list[str]:
    """Return what the YAML says about itself; effect, interval and verdict are of one study."""
    keeps, measured = evidence["retention"], evidence["effect"]
    studies = [measured[study] for study in ("confirmed", "combination", "first")]
    known = next((row for row in studies if row and row["change"] is not None), None)
    expected = "Expected effect: not known; see the caveats."
    if known is not None:
        # An interval may be missing: one seed has none.
        interval = ", ".join("?" if end is None else f"{end:+.4g}" for end in known["interval"])
        expected = (
            f"Expected effect: {known['change']:+.4g} [{interval}] ({measured['unit']}, "
            f"{known['verdict']}), that of the pool {evidence['pool']['id']}."
        )
    return [
        f"Recipe {name}, by {evidence['thresholds']['source']}.",
        expected,
        f"Expected retention: {keeps['share']:.2%} ({keeps['rows']} of "
        f"{evidence['dataset']['rows']} rows of {evidence['dataset']['id']}).",
        f"Evidence and caveats: {name}.evidence.json beside this file.",
    ]
