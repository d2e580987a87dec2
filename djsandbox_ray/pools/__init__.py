"""Pools: from columns of statistics to the rows that every trial trains on. Pure numpy.

``eligible`` says which rows may be in a pool, and checks the input; ``cuts`` cuts one column at a
time into buckets by exact order statistics, ties split by the hash of ``order``; ``contrast`` says
which statistics are worth a trial; ``arms`` makes the control arms and the self-tests, random
buckets built like the others, and sets chosen pools beside fresh controls for a second look;
``builder`` picks further rows (the extension point); ``build`` lays out what brings all to one
size, as ``config`` asks; ``filling`` says, part by part, which rows that is; ``draws`` takes a
seed's subsample of a pool; ``serialise`` is the JSON form. A pool is row ids, never a copy of
samples.

What follows the first study is made of its pools: ``combine`` makes all intersections of some, and
``layers`` is the order in which the best of these takes in further rows.
"""
