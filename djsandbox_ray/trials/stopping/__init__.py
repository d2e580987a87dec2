"""Early stopping: which pools are given up at a rung.

``stopping.py`` is the extension point; ``none.py``, ``race.py`` and ``asha.py`` are the choices.
The race itself is plain Python, fed with reports; ``barrier.py`` makes it a scheduler of Ray Tune.
"""

# Importing a module registers its way of stopping.
from djsandbox_ray.trials.stopping import asha, none, race  # noqa: F401
