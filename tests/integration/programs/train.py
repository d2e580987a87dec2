"""Learns to tell a picture's colour from its caption: softmax regression on words, in plain Python.

A program of others, as a run sees it: it knows nothing of this package, and has its own packages.
"""

import argparse
import json
import math
import os
import random
import time
from pathlib import Path

SIZE, RATE = 8, 0.5


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("pool", "checkpoint", "output", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("samples", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return parser.parse_args()


def samples(folder):
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            assert all((folder / image).stat().st_size for image in row["images"])
            found.append((row["text"].split(), row["meta"]["colour"]))
    return found


def scores(weights, words):
    return {
        label: sum(known.get(word, 0.0) for word in words) / len(words)
        for label, known in weights.items()
    }


def step(weights, words, truth):
    """Descend on one sample, and return its loss."""
    found = scores(weights, words)
    top = max(found.values())
    total = sum(math.exp(value - top) for value in found.values())
    for label, known in weights.items():
        error = (label == truth) - math.exp(found[label] - top) / total
        for word in words:
            known[word] = known.get(word, 0.0) + RATE * error
    return top + math.log(total) - found[truth]


def main():
    import packaging  # not there for the evaluator, which needs the rest of this module

    given = arguments()
    rows, kept = samples(given.pool), given.checkpoint / "state.json"
    state = {"seen": 0, "weights": {label: {} for label in sorted({row[1] for row in rows})}}
    if kept.exists():
        state = json.loads(kept.read_text())
    order = random.Random(given.seed).choices(range(len(rows)), k=given.samples)
    losses = [step(state["weights"], *rows[place]) for place in order[state["seen"] :]]
    began = {"from": state["seen"], "pid": os.getpid(), "version": packaging.__version__}
    if notes := os.environ.get("NOTES"):
        Path(notes, f"{time.time_ns()}.json").write_text(json.dumps(began))
    print(f"trained from {state['seen']} to {given.samples}")
    state["seen"] = given.samples
    kept.write_text(json.dumps(state))
    (given.output / "weights.json").write_text(json.dumps(state["weights"]))
    report = {"samples": given.samples, "loss": sum(losses) / len(losses)}
    report["metrics"] = {"packaging": int(packaging.__version__.split(".")[0])}
    given.metrics.write_text(json.dumps(report))


if __name__ == "__main__":
    main()
