"""Measures how often the model of ``train.py`` is right."""

import argparse
import json
from pathlib import Path

from train import samples, scores


def main():
    parser = argparse.ArgumentParser()
    for name in ("model", "samples", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    weights = json.loads((given.model / "weights.json").read_text())
    right = []
    for words, truth in samples(given.samples):
        found = scores(weights, words)
        right.append(max(found, key=found.get) == truth)
    accuracy = [sum(right) / len(right), len(right)]
    given.metrics.write_text(json.dumps({"results": {"accuracy": accuracy}}))


if __name__ == "__main__":
    main()
