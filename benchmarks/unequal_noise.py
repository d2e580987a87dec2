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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[3, 2])
    options = parser.parse_args()
    world: Any = importlib.import_module("null_studies").World
    rows = {
        "18 pools, 10 controls": world(pools=18, controls=10),
        "69 pools, 17 controls": world(pools=69, controls=17),
        "69 / 17, whole buckets": world(pools=69, controls=17, draw_share=1.0),
    }
    print(f"{'':24}{'seeds':>6}{'noise':>34}  error (se)   width")
    for seeds in options.seeds:
        for name, plain in rows.items():
            row = replace(plain, seeds=seeds)
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
                line = (
                    f"{name:24}{seeds:6}{noise:>34}  {error:.3f} ({spread:.3f})  {found.width:.2f}"
                )
                print(line, flush=True)


if __name__ == "__main__":
    main()
