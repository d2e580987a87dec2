"""Between a run and InternVL's evaluation: gives it the trusted split, reads its scores.

Runs in InternVL's environment, on a clone of its repository. InternVL looks for COCO's Karpathy
split in ``data/coco`` of its working directory; what it finds is the trusted split, in that layout.
The captions of one image are its references, however many rows it has. METEOR, SPICE and the
tokenizer of the scores are programs in Java.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

from run_files import Pair, arguments, call, pairs, torchrun

EVALUATION = "eval/caption/evaluate_caption.py"
DATASET = "coco"
# As Python shows a pair of a name and a float, or numpy 2 its own float.
_SCORE = re.compile(r"\('(\w+)', (?:np\.float64\()?(-?[\d.]+(?:e[-+]?\d+)?|-?inf|nan)\)")


def write_split(samples: list[Pair], folder: Path) -> int:
    """Write the trusted split as InternVL looks for it; return how many images it has.

    ``coco_karpathy_test.json`` lists the images, ``coco_karpathy_test_gt.json`` the captions. The
    number of an image is what stands behind the last underscore of its name.
    """
    numbers: dict[str, int] = {}
    images, references = [], []
    (folder / "annotations").mkdir(parents=True)
    for pair in samples:
        content = hashlib.blake2b(pair.image.read_bytes()).hexdigest()
        number = numbers.setdefault(content, len(numbers))
        if number == len(images):
            name = f"split_{number:012d}.jpg"  # whatever it is: its first bytes are read
            (folder / name).symlink_to(pair.image.resolve())
            images.append({"image": name, "caption": []})
        images[number]["caption"].append(pair.caption)
        one = {"id": len(references), "image_id": number, "caption": pair.caption}
        references.append(one)
    known = {
        "info": {},
        "type": "captions",
        "images": [{"id": number} for number in range(len(images))],
        "annotations": references,
    }
    for name, content in (("test", images), ("test_gt", known)):
        path = folder / "annotations" / f"coco_karpathy_{name}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
    return len(images)


def scores(results: Path) -> dict[str, float]:
    """Return the scores of the one summary in a folder, as exact as they stand there."""
    found = sorted(results.glob("*.txt"))
    if len(found) != 1:
        sys.exit(f"{results}: one summary is expected, not {[file.name for file in found]}")
    read = {name: float(value) for name, value in _SCORE.findall(found[0].read_text())}
    if not read:
        sys.exit(f"{found[0]}: no scores in {found[0].read_text()[:200]!r}")
    return read


def main() -> None:
    """Evaluate ``--model``; words that are not known here go to InternVL."""
    given, options = arguments(("model", "samples", "metrics", "internvl"))
    count = write_split(pairs(given.samples), Path("data", DATASET))
    print(f"{count} images of the trusted split")
    words = torchrun([str(given.internvl / EVALUATION), f"--checkpoint={given.model}"])
    words += [f"--datasets={DATASET}", "--out-dir=results", *options]
    call(words, PYTHONPATH=str(given.internvl))
    given.metrics.write_text(json.dumps({DATASET: scores(Path("results"))}), encoding="utf-8")


if __name__ == "__main__":
    main()
