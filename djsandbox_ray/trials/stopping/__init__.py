"""Early stopping: which pools are given up at a rung.

``stopping.py`` is the extension point, with the choice to stop nothing; ``race.py`` and ``asha.py``
are the others. The race is plain Python, fed with reports; ``barrier.py`` makes it a scheduler of
Ray Tune.
"""
