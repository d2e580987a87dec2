"""Features of videos by I3D: this file alone is sent to the environment of ``cd-fvd``.

Its own command computes the distance, too, and downloads weights that are not there; here it only
computes features, of frames that were cut and scaled before, with weights from a file.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path


def main() -> None:
    """Write one row of features for every file of frames, in the order of their names."""
    parser = argparse.ArgumentParser(description="I3D's logits of videos.")
    for name in ("--videos", "--weights", "--features"):
        parser.add_argument(name, required=True)
    given = parser.parse_args()
    numpy, torch = importlib.import_module("numpy"), importlib.import_module("torch")
    i3d = importlib.import_module("cdfvd.third_party.i3d.utils")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = i3d.load_i3d_model(device, given.weights)
    found = []
    for path in sorted(Path(given.videos).glob("*.npy")):
        pixels = i3d.preprocess_i3d(numpy.load(path)[None])
        with torch.no_grad():
            found.append(model(pixels.to(device)).float().cpu().numpy())
    numpy.save(given.features, numpy.concatenate(found))


if __name__ == "__main__":
    main()
