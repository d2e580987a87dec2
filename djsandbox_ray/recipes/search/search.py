"""The threshold search: Ray Tune's OptunaSearch proposes windows, trials score them.

The searcher is asked for as many proposals as can be trained at once, and told their scores in the
order of their numbers; its sampler is seeded. So a search that is begun again proposes the same as
before, and finds its trials in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from djsandbox_ray.errors import BadInput
from djsandbox_ray.identity import rows_hash
from djsandbox_ray.recipes.search.space import SearchSpace, Window
from djsandbox_ray.records import Range

STARTUP = 10
"""Scores that the sampler wants to have before it models them (Optuna's default); known ones
count."""
_IN_VAIN = 100
"""After so many proposals in a row that are infeasible or known, the search ends."""
_SCORE = "score"


class ProposalState(StrEnum):
    """What became of a proposal."""

    PROPOSED = "proposed"
    """Its trials are to be run."""
    TRAINED = "trained"
    FAILED = "failed"
    """None of its trials was completed."""
    REPEATED = "repeated"
    """It has the rows of an earlier one, hence its score."""
    EVERYTHING = "everything"
    """It keeps all rows, which is what controls are drawn from: its score is 0 by definition."""
    INFEASIBLE = "infeasible"
    """It keeps fewer rows than a trial draws."""


@dataclass(frozen=True)
class Proposal:
    """Windows, what they mean, and what their trials scored."""

    number: int
    """In the order in which they were proposed, from 0."""
    windows: Mapping[str, Window]
    ranges: tuple[Range, ...]
    rows: int
    """Rows inside all ranges."""
    pool: str
    """Id of the pool of these rows."""
    state: ProposalState
    score: float | None = None
    """Mean over seeds of the change against the controls; None where there is none."""

    @property
    def feasible(self) -> bool:
        """Whether a trial could draw from its rows."""
        return self.state is not ProposalState.INFEASIBLE

    @property
    def is_gain(self) -> bool:
        """Whether it scored above what keeping every row does, which is 0."""
        return self.score is not None and self.score > 0


@dataclass(frozen=True)
class SearchPlan:
    """How much is tried, and how.

    Raises:
        BadInput: fewer than one proposal, or than one at a time.
    """

    proposals: int
    """Pools that are trained, all different."""
    batch: int = 1
    """Pools that are trained at once: what is proposed does not know of their scores."""
    seed: int = 0
    """Of the sampler."""

    def __post_init__(self) -> None:
        for name in ("proposals", "batch"):
            if getattr(self, name) < 1:
                raise BadInput(f"search: {name} is {getattr(self, name)}; at least 1 is needed")
        if not 0 <= self.seed < 2**32:
            raise BadInput(f"search: seed is {self.seed}; a number from 0 to 2^32 - 1 is needed")


Windows = Mapping[str, Window]
ScorePools = Callable[[Sequence[Proposal]], Sequence[float | None]]
"""Trains the pools of proposals and returns their scores; None where every trial failed."""


def search(
    space: SearchSpace,
    plan: SearchPlan,
    measure: ScorePools,
    *,
    known: Sequence[tuple[Windows, float]] = (),
    first: Sequence[Windows] = (),
) -> list[Proposal]:
    """Search for the windows whose pool has the greatest score.

    Args:
        space: what is chosen from.
        plan: how much is tried.
        measure: trains a batch.
        known: scores of windows that were trained before; that of all rows, 0, needs no mention.
        first: windows to be tried before the searcher chooses by itself.

    Returns:
        All proposals by number. Fewer than ``plan.proposals`` of them are trained if the searcher
        finds no more pools that are feasible and new.
    """
    searcher = _Searcher(space, plan.seed, [({}, 0.0), *known], first)
    trained: dict[str, float | None] = {}
    done: list[Proposal] = []
    while len(trained) < plan.proposals:
        size = min(plan.batch, plan.proposals - len(trained))
        waiting: list[Proposal] = []
        fresh: dict[str, Proposal] = {}
        in_vain = 0
        while len(fresh) < size and in_vain < _IN_VAIN:
            proposal = searcher.ask()
            if proposal.state is not ProposalState.PROPOSED or proposal.pool in trained:
                done.append(_settled(proposal, trained, repeated=True))
                searcher.tell(done[-1])
                in_vain += 1
                continue
            in_vain = in_vain + 1 if proposal.pool in fresh else 0
            waiting.append(proposal)
            fresh.setdefault(proposal.pool, proposal)
        if not fresh:
            break
        scores = measure(list(fresh.values()))
        trained |= dict(zip(fresh, scores, strict=True))
        for proposal in waiting:
            repeated = fresh[proposal.pool] is not proposal
            done.append(_settled(proposal, trained, repeated=repeated))
            searcher.tell(done[-1])
    return sorted(done, key=lambda proposal: proposal.number)


def best(proposals: Sequence[Proposal]) -> Proposal | None:
    """Return the trained proposal of the greatest score, the first of equal ones."""
    scored = [item for item in proposals if item.state is ProposalState.TRAINED]
    return max(scored, key=lambda item: (item.score, -item.number), default=None)


def _settled(
    proposal: Proposal, trained: Mapping[str, float | None], *, repeated: bool
) -> Proposal:
    """Add what came of a proposal that was to be trained."""
    if proposal.state is not ProposalState.PROPOSED:
        return proposal
    score = trained[proposal.pool]
    state = ProposalState.TRAINED if score is not None else ProposalState.FAILED
    return replace(proposal, score=score, state=ProposalState.REPEATED if repeated else state)


class _Searcher:
    """Tune's OptunaSearch in terms of windows."""

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        known: Sequence[tuple[Windows, float]],
        first: Sequence[Windows],
    ) -> None:
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self.asked = 0
        self._searcher = OptunaSearch(
            {
                name: optuna.distributions.FloatDistribution(low, high)
                for name, (low, high) in space.bounds().items()
            },
            metric=_SCORE,
            mode="max",
            points_to_evaluate=[space.point(windows) for windows in first],
            # The two ends of a window belong together; pools that are still in training are
            # taken for bad ones, so that the others of a batch differ from them.
            sampler=optuna.samplers.TPESampler(
                n_startup_trials=STARTUP, multivariate=True, constant_liar=True, seed=seed
            ),
        )
        for windows, score in known:
            self._searcher.add_evaluated_point(space.point(windows), score)

    def ask(self) -> Proposal:
        """Return the next proposal."""
        point: dict[str, float] = self._searcher.suggest(str(self.asked)) or {}
        windows = self._space.windows(point)
        ranges = self._space.ranges(windows)
        inside = self._space.inside(ranges)
        rows, state, score = int(np.count_nonzero(inside)), ProposalState.PROPOSED, None
        if rows < self._space.least:
            state = ProposalState.INFEASIBLE
        elif rows == self._space.size:
            state, score = ProposalState.EVERYTHING, 0.0
        pool = f"search/{rows_hash(np.flatnonzero(inside))[:16]}"
        self.asked += 1
        return Proposal(self.asked - 1, windows, ranges, rows, pool, state, score)

    def tell(self, proposal: Proposal) -> None:
        """Pass on what became of a proposal.

        An infeasible one is worse than every score (to Optuna, one that was pruned before it
        reported anything), so that the sampler keeps away from there; a failed one says nothing.
        """
        trial = str(proposal.number)
        if proposal.score is None:
            self._searcher.on_trial_complete(trial, None, error=proposal.feasible)
        else:
            self._searcher.on_trial_complete(trial, {_SCORE: proposal.score})
