"""Between a run and VBench: has the repository sample videos, and lets VBench judge them.

Runs in VBench's environment. What to change for another repository: the command that samples.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from run_files import call, captions


def main() -> None:
    """Sample one video per prompt, judge them, and hand VBench's results on as they are."""
    parser = argparse.ArgumentParser()
    for name in ("model", "samples", "metrics", "sampler"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--dimensions", nargs="+", required=True)
    given = parser.parse_args()
    videos, listed = Path("videos").absolute(), Path("prompts.txt").absolute()
    videos.mkdir()
    listed.write_text("\n".join(captions(given.samples)), encoding="utf-8")
    words = [given.sampler, f"--model={given.model}", f"--prompts={listed}", f"--out={videos}"]
    call(words)

    import torch
    from vbench import VBench

    known = Path(__import__("vbench").__file__).with_name("VBench_full_info.json")
    judge = VBench(torch.device("cuda"), str(known), "results")
    judge.evaluate(
        videos_path=str(videos),
        name="run",
        dimension_list=given.dimensions,
        mode="custom_input",
        prompt_list={},
    )
    shutil.copy("results/run_eval_results.json", given.metrics)


if __name__ == "__main__":
    main()
