"""Stands in for InternVL's evaluation of captions: its command line and files, simpler scores.

``ds_collections``, the number in an image's name, and the summary are as InternVL has them. The
scores are overlaps of words, not those of pycocoevalcap, which needs Java.
"""

import argparse
import json
import math
import os
import sys
from collections import Counter
from pathlib import Path

from PIL import Image

sys.path.append(str(Path(__file__).parents[3]))
from captioner import Captioner, features

ROOT = Path("data/coco/")
IMAGES = "annotations/coco_karpathy_test.json"
KNOWN = "annotations/coco_karpathy_test_gt.json"


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=str, default="")
    parser.add_argument("--datasets", type=str, default="coco,flickr30k,nocaps")
    for name, default in (("batch-size", 1), ("num-workers", 1), ("num-beams", 1), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--out-dir", type=str, default="results")
    parser.add_argument("--max-num", type=int, default=6)
    for name in ("dynamic", "load-in-8bit", "load-in-4bit", "auto"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args()


def grams(text, length):
    words = text.split()
    return Counter(zip(*(words[start:] for start in range(length)), strict=False))


def overlap(said, references, length):
    """Return the share of a caption's n-grams that stand in a reference too."""
    known = Counter()
    for reference in references:
        known |= grams(reference, length)
    own = grams(said, length)
    return sum((own & known).values()) / max(1, sum(own.values()))


def rarity(known):
    """Return how much a word tells, as CIDEr has it: the log of the share of images without it."""
    found = Counter()
    for references in known.values():
        found.update({word for reference in references for word in reference.split()})
    return {word: math.log(len(known) / count) for word, count in found.items()}


def likeness(said, reference, rare):
    """Return the cosine between counts of words, each times what it tells."""
    own, known = (
        {word: count * rare.get(word, 0.0) for (word,), count in grams(text, 1).items()}
        for text in (said, reference)
    )
    lengths = [math.hypot(*weights.values()) for weights in (own, known)]
    both = sum(weight * known.get(word, 0.0) for word, weight in own.items())
    return both / math.prod(lengths) if all(lengths) else 0.0


def scores(said, known):
    count, rare = len(said), rarity(known)
    found = {}
    for n in range(1, 5):
        found[f"Bleu_{n}"] = sum(overlap(said[i], known[i], n) for i in said) / count
    likes = {i: [likeness(said[i], one, rare) for one in known[i]] for i in said}
    mean = sum(sum(own) / len(own) for own in likes.values()) / count
    best = sum(max(own) for own in likes.values()) / count
    recalled = sum(overlap(known[i][0], [said[i]], 1) for i in said) / count
    return {**found, "METEOR": best, "ROUGE_L": recalled, "CIDEr": 10 * mean, "SPICE": mean}


def main():
    given = arguments()
    assert given.batch_size == 1, "Only batch size 1 is supported"
    assert given.datasets == "coco", given.datasets
    Path(given.out_dir).mkdir(exist_ok=True)
    if int(os.environ["RANK"]):
        return
    model = Captioner.load(Path(given.checkpoint, "model.json"))
    said, known = {}, {}
    for entry in json.loads((ROOT / IMAGES).read_text()):
        number = int(entry["image"].split("_")[-1].replace(".jpg", ""))
        with Image.open(ROOT / entry["image"]) as image:
            said[number] = model.caption(features(image))
    truth = json.loads((ROOT / KNOWN).read_text())
    assert said.keys() == {image["id"] for image in truth["images"]}
    for note in truth["annotations"]:
        known.setdefault(note["image_id"], []).append(note["caption"])
    length = sum(len(text.split()) for text in said.values()) / len(said)
    summary = [given.checkpoint, "coco", length, scores(said, known).items()]
    name = "_".join(given.checkpoint.split("/")[-2:])
    with Path(given.out_dir, f"{name}.txt").open("a") as file:
        file.write(f"{summary}\n")


if __name__ == "__main__":
    main()
