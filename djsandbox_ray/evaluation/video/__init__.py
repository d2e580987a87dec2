"""What generated videos are worth: the dimensions of VBench, and distances to real videos.

``wanted.py`` is what a model is asked for, ``stored_videos.py`` keeps the files that it makes, and
``video_files.py`` is how these are written and read; ``evaluator.py`` is the base of all that look
at them. ``vbench.py`` is VBench: ``prompts.py`` its prompts, ``board.py`` its table and averages,
``dimensions.py`` the formulas that are computed here, of features by ``features.py``, and
``official.py`` VBench itself, which ``run_vbench.py`` calls in an environment of its own.
``fvd.py`` compares with real videos by the distances of ``frechet.py``; ``i3d.py`` and
``run_i3d.py`` have I3D look at them.
"""
