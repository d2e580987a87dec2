"""Benchmarks of questions about images, scored by the rules that published numbers come from.

``pictures.py`` and ``benchmark.py`` say what they have in common: how their files become a table
with a row for every image, and what is asked about which of them. ``textvqa.py``, ``mmbench.py``,
``mme.py``, ``pope.py`` and ``vqa.py`` (a user's own) are a benchmark each, from its files to its
score. ``normal.py``, ``options.py`` and ``yes_no.py`` read answers; ``made_elsewhere.py`` finds
those that other programs have written.
"""
