"""Before a run: turns InternVL's files of COCO's Karpathy split into pairs that a run can read.

Usage: ``python configs/use_cases/internvl/karpathy_pairs.py /data/coco``, where the images lie in
``train2014`` and ``val2014``, and InternVL's ``coco_karpathy_train_567k.jsonl`` and
``coco_karpathy_test.json`` in ``annotations``. Writes ``pairs_train.jsonl`` and
``pairs_test.jsonl`` into that folder, in Data-Juicer's layout, with a line for every caption.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TRAIN, TEST = "coco_karpathy_train_567k.jsonl", "coco_karpathy_test.json"


def train_pairs(annotations: Path) -> Iterator[tuple[str, str]]:
    """Yield image and caption of every conversation: the caption is what the model is to answer."""
    with (annotations / TRAIN).open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            sample = json.loads(line)
            answers = [turn["value"] for turn in sample["conversations"] if turn["from"] == "gpt"]
            if len(answers) != 1:
                sys.exit(f"{TRAIN}, line {number}: {len(answers)} answers, not one caption")
            yield sample["image"], answers[0]


def test_pairs(annotations: Path) -> Iterator[tuple[str, str]]:
    """Yield image and caption, about five times per image."""
    for entry in json.loads((annotations / TEST).read_text(encoding="utf-8")):
        listed = entry["caption"]
        for caption in [listed] if isinstance(listed, str) else listed:
            yield entry["image"], caption


def main() -> None:
    """Write both files; an image that is not there is an error of the run that reads them."""
    if len(sys.argv) != 2 or not Path(sys.argv[1], "annotations").is_dir():
        sys.exit(f"usage: {sys.argv[0]} FOLDER, that of COCO, with 'annotations' in it")
    coco = Path(sys.argv[1])
    for name, read in (("train", train_pairs), ("test", test_pairs)):
        path, lines = coco / f"pairs_{name}.jsonl", 0
        with path.open("w", encoding="utf-8") as file:
            for image, caption in read(coco / "annotations"):
                row: dict[str, Any] = {"text": f"<__dj__image> {caption}", "images": [image]}
                file.write(json.dumps(row) + "\n")
                lines += 1
        print(f"{path}: {lines:,} pairs")


if __name__ == "__main__":
    main()
