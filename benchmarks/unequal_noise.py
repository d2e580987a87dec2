"""Family-wise error and width of the intervals where arms are not equally noisy, or tails heavy.

Simulated studies in which nothing matters, with the world of the tests (``null_studies``): the
share of studies with any false verdict, at nominal 5 %, and the median half-width in standard
deviations of a trial. ``data`` is the share of a trial's noise that comes from its samples.

    python benchmarks/unequal_noise.py --studies 2000
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / "analysis")]


FEW, MANY, WHOLE = "18 pools, 10 controls", "69 pools, 17 controls", "69 / 17, whole buckets"
BEFORE = {
    FEW: {0.3: (0.10, 0.13), 0.6: (0.22, 0.32), 0.9: (0.28, 0.42)},
    MANY: {0.3: (0.19, 0.24), 0.6: (0.34, 0.56), 0.9: (0.36, 0.60)},
    WHOLE: {0.3: (0.19, 0.24), 0.6: (0.47, 0.76), 0.9: (0.64, 0.97)},
}
"""Errors with three seeds, by the standard deviation of the logarithm of arms' noise: where all
arms differ, and where only pools do."""
WIDTHS_BEFORE = {FEW: 2.56, MANY: 2.61, WHOLE: 2.86}
"""Where all arms are equally noisy, half of it from samples; with three seeds."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[3, 2])
    options = parser.parse_args()
    world: Any = importlib.import_module("null_studies").World
    rows = {
        FEW: world(pools=18, controls=10),
        MANY: world(pools=69, controls=17),
        WHOLE: world(pools=69, controls=17, draw_share=1.0),
    }
    print(f"{'':24}{'seeds':>6}{'noise':>34}  before  error (se)     before  width")
    for seeds in options.seeds:
        for name, plain in rows.items():
            row = replace(plain, seeds=seeds)
            errors = BEFORE[name] if seeds == 3 else {}
            before = {
                f"log-sd {log_sd}, {arms}": error
                for log_sd, pair in errors.items()
                for arms, error in zip(("all arms", "only pools"), pair, strict=True)
            }
            widths = {"equal, data 0.5": WIDTHS_BEFORE[name]} if seeds == 3 else {}
            cases = {f"equal, data {data}": replace(row, data=data) for data in (0.2, 0.5, 0.8)}
            for log_sd in (0.3, 0.6, 0.9):
                for vary in ("both", "pools"):
                    noise = f"log-sd {log_sd}, {'all arms' if vary == 'both' else 'only pools'}"
                    cases[noise] = replace(row, log_sd=log_sd, vary=vary)
            cases["t with 3 df"] = replace(row, tail="t3")
            cases["5 % of trials collapse"] = replace(row, tail="collapse")
            for noise, case in cases.items():
                found = case.judged(options.studies, seed=11)
                error = found.missed() / options.studies
                spread = math.sqrt(error * (1 - error) / options.studies)
                shown = f"{before[noise]:.2f}" if noise in before else "-"
                width = f"{widths[noise]:.2f}" if noise in widths else "-"
                print(
                    f"{name:24}{seeds:6}{noise:>34}  {shown:>6}  {error:.3f} ({spread:.3f})  "
                    f"{width:>6}  {found.width:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
