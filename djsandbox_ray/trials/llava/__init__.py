"""The LLaVA family: a vision tower and a language model, joined by a projector.

``text.py`` turns conversations into tokens, and says which of them are learnt; ``pixels.py`` makes
squares of images; ``base_folder.py`` reads and writes the base, a folder, and ``base.py`` makes it
from others or trains a small one; ``modules.py`` has the parts in torch; ``objective.py`` is what
is learnt, ``features.py`` stores what the tower sees, ``answerer.py`` what evaluators ask,
``flops.py`` what all that costs; ``family.py`` ties them to trials.
"""
