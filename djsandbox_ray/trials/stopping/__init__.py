"""Early stopping: which pools are given up at a rung.

``stopping.py`` is the extension point; ``none.py``, ``race.py`` and ``asha.py`` are the choices.
The race itself is plain Python, fed with reports; ``barrier.py`` makes it a scheduler of Ray Tune.
"""
