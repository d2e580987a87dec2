"""Pools: from columns of statistics to the rows that every trial trains on. Pure numpy.

``within`` says which rows are out of the question, where only a part of the dataset is probed;
``table`` checks the input and keeps excluded rows out; ``cuts`` cuts one column at a time into
buckets by exact order statistics, ties split by ``hashing``; ``contrast`` says which statistics
are worth a trial; ``arms`` adds the control arms and the self-tests, random buckets built like
the others; ``builder`` picks further rows (the extension point); ``build`` brings all to one
size and names the pools; ``draws`` takes a seed's subsample of a pool; ``serialise`` is the JSON
form. A pool is row ids, never a copy of samples.

What follows the first study is made of its pools: ``confirm`` sets some of them beside fresh
controls; ``membership`` tells which of some pools hold a row, from which ``combine`` makes all of
their intersections and ``layers`` the order in which the best of these takes in further rows.

"""
