"""Between a run and lmms-eval: evaluates a LLaVA folder, and hands its results on as they are."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from run_files import call


def main() -> None:
    """Run the tasks and copy the JSON that lmms-eval writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--tasks", required=True)
    given = parser.parse_args()
    results = Path("results")
    words = ["python", "-m", "lmms_eval", "--model=llava", f"--tasks={given.tasks}"]
    words += [f"--model_args=pretrained={given.model}", "--batch_size=1"]
    call([*words, f"--output_path={results}"])
    (written,) = results.rglob("*results.json")
    shutil.copy(written, given.metrics)


if __name__ == "__main__":
    main()
