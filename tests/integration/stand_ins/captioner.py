"""What both stand-ins train: says which words of a caption an image calls for. Pillow alone.

One logistic regression per word, on a thumbnail of 4 x 4 pixels.
"""

import json
import math
import random

SIDE = 4
FEATURES = 3 * SIDE * SIDE + 1


def features(image):
    """Return what is seen of a Pillow image: a thumbnail, centred, and a constant."""
    thumbnail = image.convert("RGB").resize((SIDE, SIDE))
    return [value / 128 - 1 for value in thumbnail.tobytes()] + [1.0]


class Captioner:
    def __init__(self, weights=None, captions=()):
        self.weights = weights or {}
        self.captions = list(captions)

    @classmethod
    def load(cls, path):
        return cls(**json.loads(path.read_text()))

    def save(self, path):
        path.write_text(json.dumps({"weights": self.weights, "captions": self.captions}))

    def know(self, captions, seed):
        """Have weights for all words of some captions, and say no other captions than these."""
        draw = random.Random(seed)
        self.captions = sorted({*self.captions, *captions})
        for word in sorted({word for caption in captions for word in caption.split()}):
            self.weights.setdefault(word, [draw.gauss(0, 0.01) for _ in range(FEATURES)])

    def odds(self, seen):
        """Return the probability of each word."""
        found = {}
        for word, weights in self.weights.items():
            total = sum(weight * value for weight, value in zip(weights, seen, strict=True))
            if not math.isnan(total):
                total = max(-30.0, min(30.0, total))
            found[word] = 1 / (1 + math.exp(-total))
        return found

    def step(self, seen, caption, rate):
        """Descend on one sample, and return its loss before."""
        words, loss = set(caption.split()), 0.0
        for word, odds in self.odds(seen).items():
            loss -= math.log(odds if word in words else 1 - odds)
            for place, value in enumerate(seen):
                self.weights[word][place] += rate * ((word in words) - odds) * value
        return loss / len(self.weights)

    def fit(self, odds, caption):
        """Return how well a caption goes with an image's odds: the log of its probability."""
        words = set(caption.split())
        known = sum(math.log(odds[word] if word in words else 1 - odds[word]) for word in odds)
        return known - 10.0 * len(words - odds.keys())

    def caption(self, seen):
        """Return the one of the captions of the training that fits best."""
        odds = self.odds(seen)
        gains = {word: math.log(one / (1 - one)) for word, one in odds.items()}
        return max(self.captions, key=lambda text: sum(gains[word] for word in set(text.split())))
