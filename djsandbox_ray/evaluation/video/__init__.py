"""What generated videos are worth: VBench's sixteen dimensions, and Frechet's distance to real ones.

``board.py`` holds VBench's table, its normalisation and its averages; ``dimensions.py`` five of the
dimensions and ``frechet.py`` distances, both of features that ``features.py`` computes. ``files.py``
is how videos are written and read.
"""
