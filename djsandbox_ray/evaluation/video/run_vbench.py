"""Runs VBench once on a folder of videos: this file alone is sent to VBench's environment.

VBench's own command starts a process group that needs a GPU, through a shell, and ends well when
its work has failed. This calls what that calls, with the arguments that it has, on what device
there is, and from files that are there: nothing is downloaded.
"""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path

NAME = "videos"
"""VBench writes ``<name>_eval_results.json``."""
_DINO = "dino_vitbase16_pretrain.pth"


def main() -> None:
    """Judge the videos, in all dimensions at once."""
    parser = argparse.ArgumentParser(description="VBench, once on a folder of videos.")
    for name in ("--videos_path", "--full_json_dir", "--output_path", "--dimension"):
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    _find_dino(Path(os.environ["VBENCH_CACHE_DIR"]))
    # Its weights are pickles of objects, as their authors have published them.
    os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch = importlib.import_module("torch")
    vbench = importlib.import_module("vbench")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    judge = vbench.VBench(device, given.full_json_dir, given.output_path)
    judge.evaluate(
        videos_path=given.videos_path,
        name=NAME,
        dimension_list=given.dimension.split(),
        local=True,
        read_frame=False,
        mode="vbench_standard",
    )


def _find_dino(cache: Path) -> None:
    """Have torch's hub find DINO's weights, which it looks for in a folder of its own only."""
    weights = cache / "dino_model" / _DINO
    if weights.is_file():
        home = Path("torch_home").absolute()
        place = home / "hub" / "checkpoints" / _DINO
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(weights)
        os.environ["TORCH_HOME"] = str(home)


if __name__ == "__main__":
    main()
