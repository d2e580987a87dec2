"""What a trained model is worth: a trusted split, evaluators over it, one suite of metrics.

``config.py`` is its section of a configuration, ``evaluator.py`` the extension point, with the
trusted split. ``zero_shot.py`` and ``retrieval.py`` are the standard evaluators of image-text
models, ``programs.py`` those of models that programs train; each has the ``VERSION`` of its
formula. ``suite.py`` runs several on one model and names their metrics. What models answer
(``vqa/``) and the videos that they make (``video/``) is kept, and can be scored again.
"""
