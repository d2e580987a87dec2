"""What early stopping saves and what it costs: the race and Tune's ASHA beside ``none``.

Every study is trained in full (simulated, or on the shapes world with ``--shapes N``); the race and
ASHA are then replayed on its learning curves with the code that decides in a run: ``compare`` and
``audited`` of the package, and Tune's ``_Bracket``, to which trials report in the engine's order.
The numbers of a method are thus those of the same studies, and ratios to ``none``.

    python benchmarks/early_stopping.py
    python benchmarks/early_stopping.py --shapes 3
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from djsandbox_ray.analysis.verdicts.racing import RaceRule, audited, compare, wrong_stops

Floats = NDArray[np.float64]
TOP = 3
SEEDS = 3
BUDGET = 10_000
"""Samples a trial trains on, for ASHA's milestones."""
WORKFLOW = """
jobs:
  - {id: dataset, hook: ingest}
  - {id: evaluation, hook: ingest_evaluation}
  - {id: leaks, hook: leaks}
  - {id: scorer, hook: scorer}
  - {id: statistics, hook: statistics}
  - {id: pools, hook: pools}
  - {id: trials, hook: train}
"""
READING = """
Compute: samples trained, as a ratio to none, of all trials and of those that can be stopped.
Floor: all pools but the best 3 stopped at the first rung. Same top 3: share of studies that end
with the three pools that none ends with; overlap: mean share of them. A pool that ASHA keeps has
lost no trial. Audit: stopped pools that ran on, and how many of them ended among the best 3.
Rank correlation: of pools at each rung with the end."""


@dataclass(frozen=True)
class Study:
    """Learning curves of all arms; controls first, then self-tests, then the pools."""

    names: list[str]
    protected: int
    """Arms that are never stopped."""
    controls: int
    scores: Floats
    """(arms, seeds, rungs + 1)."""
    rungs: Sequence[float]

    @property
    def pools(self) -> list[str]:
        """Those that can be stopped."""
        return self.names[self.protected :]

    def finals(self) -> dict[str, float]:
        """Mean score of each pool at the end."""
        finals = self.scores[self.protected :, :, -1].mean(axis=1)
        return dict(zip(self.pools, finals.tolist(), strict=True))

    def rank_correlations(self) -> list[float]:
        """Of the pools' means at each rung with those at the end (Spearman)."""
        means = self.scores[self.protected :].mean(axis=1)
        rungs = range(len(self.rungs))
        return [float(stats.spearmanr(means[:, k], means[:, -1])[0]) for k in rungs]


@dataclass(frozen=True)
class Outcome:
    """What a method made of a study."""

    trained: Floats
    """(pools, seeds): shares of the budget."""
    kept: list[str]
    audited: list[str]


Method = Callable[[Study], Outcome]


def race(study: Study, rule: RaceRule, audit: float, seed: int) -> Outcome:
    """Replay the race: all pools meet at every rung."""
    racing, checked = list(study.pools), list[str]()
    row = {name: i for i, name in enumerate(study.names)}
    trained = np.ones((len(study.pools), SEEDS))
    for k, rung in enumerate(study.rungs):
        scores = {pool: study.scores[row[pool], :, k] for pool in racing}
        behind = compare(scores, study.scores[: study.controls, :, k], rule).behind
        for pool in behind:
            racing.remove(pool)
            if audited(pool, audit, seed):
                checked.append(pool)
            else:
                trained[row[pool] - study.protected] = rung
    return Outcome(trained, racing + checked, checked)


def asha(study: Study, factor: float) -> Outcome:
    """Replay Tune's ASHA on the pools: one trial after the other, seed by seed."""
    from ray.tune.schedulers.async_hyperband import _Bracket
    from ray.tune.schedulers.trial_scheduler import TrialScheduler

    samples = [round(rung * BUDGET) for rung in study.rungs]
    bracket = _Bracket(samples[0], BUDGET, factor, 0)
    trained = np.ones((len(study.pools), SEEDS))
    for seed in range(SEEDS):
        for i, pool in enumerate(study.pools):
            trial = SimpleNamespace(trial_id=f"{pool}-{seed}")
            for k, seen in enumerate(samples):
                score = float(study.scores[study.protected + i, seed, k])
                if bracket.on_result(trial, seen, score) == TrialScheduler.STOP:
                    trained[i, seed] = study.rungs[k]
                    break
    whole = (trained == 1).all(axis=1)
    return Outcome(trained, [p for p, kept in zip(study.pools, whole, strict=True) if kept], [])


def none(study: Study) -> Outcome:
    return Outcome(np.ones((len(study.pools), SEEDS)), study.pools, [])


@dataclass(frozen=True)
class World:
    """Saturating power laws; one standard deviation of a trial is ``SIGMA``."""

    name: str
    effect: float
    """Standard deviation of the effects of operators, in ``SIGMA``."""
    crossing: float = 0.0
    """Share of pools whose learning rate is their own, so that their curves cross others."""


SIGMA, LEVEL, KNEE, RATES = 0.015, 0.5, 0.1, 0.2
"""Noise and mean of the final score; where curves bend; spread of the log rates that cross."""
WORLDS = (
    World("subtle effects", 1.0),
    World("moderate effects", 2.0),
    World("clear effects", 4.0),
    # Rank correlations about those measured on the shapes world.
    World("clear effects, 30 % crossing", 4.0, 0.3),
)


def simulate(
    world: World, operators: int, controls: int, rungs: Sequence[float], seed: int
) -> Study:
    """Draw a study: score(f) = asymptote (1 - (1 + f / KNEE)^-rate) at the share f of the budget.

    Half of a trial's variance comes from its samples (draws of half a bucket, three buckets) and
    moves its asymptote; half from training, half of which stays over the rungs. Low and high
    buckets of an operator have opposite effects, plus something of their own.
    """
    rng = np.random.default_rng(seed)
    spread, protected = world.effect * SIGMA, controls + 2
    operator = rng.normal(0, spread, (operators, 1)) * [-1, 0, 1]
    pools = (operator + rng.normal(0, 0.3 * spread, operator.shape)).ravel()
    effects = np.concatenate([np.zeros(controls), [0, -6 * SIGMA], pools])
    arms, share, data = len(effects), 0.5, 0.5 * SIGMA**2
    bucket = rng.normal(0, np.sqrt(data * share * (1 - 1 / 3)), (arms, 1))
    draw = rng.normal(0, np.sqrt(data * (1 - share)), (arms, SEEDS))
    crosses = np.arange(arms) >= protected
    crosses &= rng.random(arms) < world.crossing
    rates = np.where(crosses, np.exp(rng.normal(0, RATES, arms)), 1.0)
    shares = np.array([*rungs, 1.0])
    curve = 1 - (1 + shares / KNEE) ** -rates[:, None]
    curve /= curve[:, -1:]
    final = LEVEL + effects[:, None] + bucket + draw
    steady, fresh = rng.normal(size=(arms, SEEDS, 1)), rng.normal(size=(arms, SEEDS, len(shares)))
    training = np.sqrt(0.5) * SIGMA * (steady + fresh) / np.sqrt(2)
    common = rng.normal(0, 2 * SIGMA, (SEEDS, 1))
    names = [f"control/{i}" for i in range(controls)] + ["self_test/0", "self_test/1"]
    names += [f"s{seed}-op{o}/{b}" for o in range(operators) for b in ("low", "middle", "high")]
    scores = final[:, :, None] * curve[:, None, :] + training + common
    return Study(names, protected, controls, scores, rungs)


def shapes(rungs: Sequence[float], options: argparse.Namespace) -> list[Study]:
    """Run studies on the shapes world without early stopping and read their learning curves."""
    from rich.console import Console

    from djsandbox_ray.config import load_config
    from djsandbox_ray.storage.store import Storage
    from djsandbox_ray.workflows.run import run_sandbox

    studies = []
    with tempfile.TemporaryDirectory(prefix="bench-early-stopping-") as folder:
        workflow = Path(folder, "probe.yaml")
        workflow.write_text(WORKFLOW)
        for seed in range(options.shapes):
            settings = {
                "workflow": workflow,
                "name": f"study-{seed}",
                "dataset.samples": options.samples,
                "dataset.seed": 10 * seed,
                "pools.seed": seed,
                "trials.budget": options.budget,
                "trials.seeds": SEEDS,
                "trials.early_stopping": f"{{type: none, rungs: {list(rungs)}}}",
                "tracking": "{type: none}",
            }
            overrides = [f"{key}={value}" for key, value in settings.items()]
            run = load_config(options.config, overrides, folder)
            run_sandbox(run, Console(stderr=True))
            studies.append(recorded(Storage(folder), f"runs/study-{seed}", run, rungs))
    return studies


def recorded(storage: object, folder: str, run: object, rungs: Sequence[float]) -> Study:
    """Read a finished run: its trials' scores at every rung, on the yardstick of that rung."""
    from djsandbox_ray.analysis.verdicts.scores import Yardstick
    from djsandbox_ray.records import PoolKind
    from djsandbox_ray.trials.trial_records import read_records

    order = [PoolKind.CONTROL, PoolKind.SELF_TEST, PoolKind.BUCKET]
    pools = storage.read_sealed(f"{folder}/pools.json")["pools"]
    kinds = {pool["id"]: PoolKind(pool["kind"]) for pool in pools}
    kinds = dict(sorted(kinds.items(), key=lambda item: order.index(item[1])))
    tables = [storage.read_table(f"{folder}/{name}.parquet") for name in ("trials", "curves")]
    trials = {(record.spec.pool, record.spec.seed): record for record in read_records(*tables)}
    for trial in trials.values():
        if trial.final is None or len(trial.reports) != len(rungs) + 1:
            raise SystemExit(
                f"{trial.spec.pool} seed {trial.spec.seed} is {trial.state} with "
                f"{len(trial.reports)} reports of {len(rungs) + 1}"
            )
    scores = np.empty((len(kinds), SEEDS, len(rungs) + 1))
    evaluation = run.evaluation
    for k in range(len(rungs) + 1):
        metrics = {key: trial.reports[k].metrics for key, trial in trials.items()}
        controls = {key: m for key, m in metrics.items() if kinds[key[0]] is PoolKind.CONTROL}
        yardstick = Yardstick.from_controls(
            controls, evaluation.score_metrics(), evaluation.kind, metrics
        )
        for i, pool in enumerate(kinds):
            scores[i, :, k] = [yardstick.change(metrics[pool, seed]) for seed in range(SEEDS)]
    count = list(kinds.values()).count
    protected = count(PoolKind.CONTROL) + count(PoolKind.SELF_TEST)
    return Study(list(kinds), protected, count(PoolKind.CONTROL), scores, rungs)


def methods(rungs: Sequence[float], options: argparse.Namespace) -> dict[str, Method]:
    rule = RaceRule(keep=options.keep, alpha=options.alpha, rungs=len(rungs))
    ratio = rungs[1] / rungs[0] if len(rungs) > 1 else 2.0
    return {
        "none": none,
        "race": lambda study: race(study, rule, 0.0, 0),
        "race, audit 0.1": lambda study: race(study, rule, 0.1, 0),
        f"ASHA, factor {ratio:g}": lambda study: asha(study, ratio),
        "ASHA, factor 4": lambda study: asha(study, 4.0),
    }


def best(finals: dict[str, float], among: Sequence[str]) -> set[str]:
    return set(sorted(among, key=lambda pool: -finals[pool])[:TOP])


def print_block(title: str, studies: Sequence[Study], options: argparse.Namespace) -> None:
    first, rungs = studies[0], studies[0].rungs
    n, arms = len(first.pools), len(first.names)
    floor = rungs[0] + (1 - rungs[0]) * TOP / n
    correlations = np.mean([study.rank_correlations() for study in studies], axis=0)
    print(
        f"\n{n} pools, {first.controls} controls, rungs {list(rungs)}, {title}; {len(studies)} "
        f"studies\n  rank correlation {' '.join(f'{c:.2f}' for c in correlations)}; floor "
        f"{(floor * n + arms - n) / arms:.2f} of all, {floor:.2f} of stoppable"
    )
    for name, method in methods(rungs, options).items():
        outcomes = [method(study) for study in studies]
        stoppable = float(np.mean([outcome.trained.mean() for outcome in outcomes]))
        overlaps, checked, wrong = [], 0, 0
        for study, outcome in zip(studies, outcomes, strict=True):
            finals = study.finals()
            chosen = best(finals, outcome.kept)
            overlaps.append(len(chosen & best(finals, study.pools)) / TOP)
            report = wrong_stops(outcome.audited, {p: finals[p] for p in outcome.kept}, TOP)
            checked, wrong = checked + report.audited, wrong + report.wrong
        same = np.mean(np.array(overlaps) == 1)
        audit = f"{wrong}/{checked}" if checked else "-"
        everything = (stoppable * n + arms - n) / arms
        print(
            f"  {name:18}{everything:12.3f}{stoppable:11.3f}{same:12.3f}"
            f"{np.mean(overlaps):10.3f}{audit:>10}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=100, help="per simulated block")
    parser.add_argument("--alpha", type=float, default=RaceRule.alpha, help="of the race")
    parser.add_argument("--keep", type=int, default=RaceRule.keep)
    parser.add_argument("--shapes", type=int, metavar="N", help="N real studies instead")
    parser.add_argument("--samples", type=int, default=6000, help="that --shapes makes")
    parser.add_argument("--budget", type=int, default=BUDGET, help="of a trial of --shapes")
    parser.add_argument("--config", default="configs/demo.yaml", help="what --shapes halves")
    options = parser.parse_args()
    print(f"race: alpha {options.alpha:g}, keep {options.keep}; {SEEDS} seeds")
    print(f"{'method':20}{'compute all':>12}{'stoppable':>11}{'same top 3':>12}", end="")
    print(f"{'overlap':>10}{'audit':>10}")
    every_rungs = ([0.25, 0.5], [0.1, 0.25, 0.5])
    if options.shapes:
        # One set of trainings serves both plans of rungs.
        rungs = every_rungs[-1]
        studies = shapes(rungs, options)
        for chosen in every_rungs:
            at = [rungs.index(rung) for rung in chosen] + [len(rungs)]
            parts = [
                Study(s.names, s.protected, s.controls, s.scores[:, :, at], chosen) for s in studies
            ]
            print_block("shapes world", parts, options)
    else:
        for operators, controls in ((6, 8), (31, 19)):
            for rungs in every_rungs:
                for world in WORLDS:
                    studies = [
                        simulate(world, operators, controls, rungs, seed)
                        for seed in range(options.studies)
                    ]
                    print_block(world.name, studies, options)
    print(READING)


if __name__ == "__main__":
    main()
