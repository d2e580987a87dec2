"""How good thresholds a search finds, beside random search and model feedback, at equal trials.

Every row of a simulated dataset has two or three statistics and a quality that depends on them; a
pool's true effect is the mean quality of its rows against that of all rows, and a trial adds noise
to it. All methods have the scores of the single-operator buckets (three per statistic). The search
is the package's own (``recipes.search``, hence Tune's OptunaSearch); random search draws from the
same space; both take the best observed of so many trained pools. Model feedback trains nothing
more: it keeps, per statistic, the buckets that scored better than the controls by more than the
noise, all statistics together. Printed is the true effect of what each method chooses, as a ratio
to the best true effect that is known: of many noise-free draws from the space and of a long search
without noise.

    python benchmarks/threshold_search.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.recipes.search.search import Proposal, SearchPlan, Windows, best, search
from djsandbox_ray.recipes.search.space import SearchSpace, Window

Floats = NDArray[np.float64]
ROWS = 6000
DRAW = ROWS // 6
THIRDS = [Window(0, 1 / 3), Window(1 / 3, 2 / 3), Window(2 / 3, 1)]


def slope(u: Floats) -> Floats:
    return u


def band(u: Floats) -> Floats:
    """Good between the 45th and the 85th percentile: no bucket is that."""
    return ((u > 0.45) & (u < 0.85)).astype(float)


def bad_tail(u: Floats) -> Floats:
    """The least 15 % are bad."""
    return (u > 0.15).astype(float)


SURFACES: dict[str, list[Callable[[Floats], Floats]]] = {
    "slope + band": [slope, band],
    "bad tail + band": [bad_tail, band],
    "two bands": [band, band],
    "slope + band + bad tail": [slope, band, bad_tail],
}


@dataclass(frozen=True, eq=False)
class World:
    """A dataset whose rows are of known quality."""

    space: SearchSpace
    quality: Floats
    """(rows,), of mean 0."""
    noise: float
    """Standard deviation of a score: of so many trials per pool as a proposal has."""

    def effect(self, windows: Windows) -> float:
        """Return the true effect; NaN where too few rows are left."""
        inside = self.space.inside(self.space.ranges(windows))
        few = np.count_nonzero(inside) < self.space.least
        return float("nan") if few else float(self.quality[inside].mean())

    def buckets(self, rng: np.random.Generator) -> list[tuple[Windows, float]]:
        """Return the single-operator study: three seeds, hence less noise than a proposal."""
        found: list[tuple[Windows, float]] = []
        for name in self.space.names:
            for window in THIRDS:
                windows = {name: window}
                error = rng.normal(0, self.noise / np.sqrt(3))
                found.append((windows, self.effect(windows) + error))
        return found


def simulate(parts: Sequence[Callable[[Floats], Floats]], noise: float, seed: int) -> World:
    """Make a world; ``noise`` is in units of the best true effect of a single bucket."""
    rng = np.random.default_rng(seed)
    ranks = rng.permuted(np.tile((np.arange(ROWS) + 0.5) / ROWS, (len(parts), 1)), axis=1)
    quality = sum(part(u) for part, u in zip(parts, ranks, strict=True))
    quality = quality - quality.mean()
    space = SearchSpace({f"s{i}": u for i, u in enumerate(ranks)}, DRAW)
    world = World(space, quality, 0.0)
    return World(space, quality, noise * max(effect for _, effect in world.buckets(rng)))


def random_windows(space: SearchSpace, rng: np.random.Generator) -> Windows:
    bounds = space.bounds()
    return space.windows({name: rng.uniform(*bound) for name, bound in bounds.items()})


def warm(known: Sequence[tuple[Windows, float]]) -> list[Windows]:
    """The best bucket of every statistic together, and the best of all."""
    ordered = sorted(known, key=lambda item: -item[1])
    together: dict[str, Window] = {}
    for windows, _ in ordered:
        for name, window in windows.items():
            together.setdefault(name, window)
    return [together, ordered[0][0]]


def by_search(world: World, known: list[tuple[Windows, float]], trials: int, seed: int) -> Windows:
    rng = np.random.default_rng(seed)

    def measure(batch: Sequence[Proposal]) -> list[float | None]:
        return [world.effect(item.windows) + rng.normal(0, world.noise) for item in batch]

    plan = SearchPlan(trials, batch=2, seed=seed)
    chosen = best(search(world.space, plan, measure, known=known, first=warm(known)))
    return {} if chosen is None or not chosen.score or chosen.score <= 0 else chosen.windows


def by_random(world: World, known: list[tuple[Windows, float]], trials: int, seed: int) -> Windows:
    rng = np.random.default_rng(seed)
    tried: list[tuple[float, Windows]] = [(0.0, {})]
    while len(tried) <= trials:
        windows = random_windows(world.space, rng)
        if np.isfinite(effect := world.effect(windows)):
            tried.append((effect + rng.normal(0, world.noise), windows))
    return max(tried, key=lambda item: item[0])[1]


def by_feedback(world: World, known: list[tuple[Windows, float]]) -> Windows:
    """Keep the buckets that are better than the controls by two standard errors."""
    chosen: dict[str, Window] = {}
    for name in world.space.names:
        better = [
            windows[name]
            for windows, score in known
            if name in windows and score > 2 * world.noise / np.sqrt(3)
        ]
        if better:
            chosen[name] = Window(min(w.low for w in better), max(w.high for w in better))
    return chosen if np.isfinite(world.effect(chosen)) else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=20, help="per line")
    parser.add_argument("--proposals", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--noise", type=float, nargs="+", default=[0.1, 0.4])
    options = parser.parse_args()
    print(f"true effect of what is chosen / best possible; mean of {options.studies} studies")
    print("noise: sd of a proposal's score / true effect of the best bucket\n")
    print(f"{'surface':26}{'noise':>6}{'pools':>7}{'search':>9}{'random':>9}{'feedback':>10}")
    for name, parts in SURFACES.items():
        for noise in options.noise:
            found: dict[tuple[str, int], list[float]] = {}
            for seed in range(options.studies):
                world = simulate(parts, noise, seed)
                rng = np.random.default_rng(1000 + seed)
                known = world.buckets(rng)
                draws = [world.effect(random_windows(world.space, rng)) for _ in range(500)]
                exact = World(world.space, world.quality, 0.0)
                ceiling = np.nanmax([*draws, world.effect(by_search(exact, known, 100, seed))])
                for trials in options.proposals:
                    chosen = {
                        "search": by_search(world, known, trials, seed),
                        "random": by_random(world, known, trials, seed),
                        "feedback": by_feedback(world, known),
                    }
                    for method, windows in chosen.items():
                        ratio = world.effect(windows) / ceiling
                        found.setdefault((method, trials), []).append(ratio)
            for trials in options.proposals:
                means = [np.mean(found[m, trials]) for m in ("search", "random", "feedback")]
                print(
                    f"{name:26}{noise:6.1f}{trials:7d}"
                    f"{means[0]:9.2f}{means[1]:9.2f}{means[2]:10.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
