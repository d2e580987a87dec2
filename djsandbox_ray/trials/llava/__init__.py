"""The LLaVA family: a vision tower and a language model, joined by a projector.

``text.py`` turns conversations into tokens, and says which of them are learnt; ``pixels.py`` does so
with images; ``build.py`` makes the base, from folders or small from ``archs/``, and ``base.py``
trains a small one; ``model.py`` is what a trial trains; ``objective.py`` its loss, ``answerer.py``
what evaluators ask of it, ``flops.py`` what that costs; ``family.py`` ties them to trials.
"""
