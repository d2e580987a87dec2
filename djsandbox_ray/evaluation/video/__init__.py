"""What generated videos are worth: the dimensions of VBench, and distances to real videos.

``board.py`` holds VBench's table, its normalisation and its averages. ``dimensions.py`` computes
five of the dimensions and ``frechet.py`` distances, both of features that ``features.py`` has from
models; ``files.py`` is how videos are written and read.
"""
