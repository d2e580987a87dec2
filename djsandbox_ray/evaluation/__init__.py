"""What a trained model is worth: a trusted split, evaluators over it, one suite of metrics.

``split.py`` reads the trusted split, ``evaluator.py`` is the extension point, ``zero_shot.py`` and
``retrieval.py`` are the standard evaluators of image-text models, ``suite.py`` runs several on one
model and names their metrics.
"""
