"""Analysis: from the metrics of trials to verdicts on pools; numpy and scipy only.

How data flows through the modules:

- ``grid``       trial records as a checked grid of pools and seeds
- ``yardstick``  the control trials' mean and noise per metric
- ``aggregate``  the metrics of one trial against that baseline, as one number: its score
- ``verdicts``   the scores of pools against those of control arms: effect, interval, p, q, verdict
- ``design``     the plan of a comparison: arms, seeds and the size of draws
- ``moderated``  the variance behind the intervals: between control arms, steadied by within arms
- ``shape``      how wide an interval is, given both variances: narrow, with a bounded error
- ``squeeze``    the variance within each arm, where arms do not vary alike
- ``dunnett``    the distribution behind the intervals: max |t| over pools that share controls
- ``scores``     the trials of a study as scores of pools and controls on one yardstick
- ``shrinkage``  effects pulled towards zero: the best of many look better than they are
- ``robustness``  verdicts that one metric carries, or that flip at another learning rate
- ``ranking``    all of the above, from trial records to the rows of the ranking
- ``confirmation``  the pools called better, beside what a second study says of them
- ``rows_csv``   such rows as CSV and back; ``ranking_csv`` for the ranking

Before a study: ``noise`` (what control arms say about the effects it can find; ``posterior``: how
sure that is) and ``power`` (the cheapest study that finds an effect). While it runs: ``racing``
(which pools are given up).

After it, what pools do together: ``candidates`` (which are fit to be combined), ``contrasts``
(linear contrasts of arms, with the intervals of the verdicts), from which ``interactions`` makes
the factorial of a pyramid, with ``shapley`` values, and ``surrogate`` predicts what was not
trained. ``correlation`` of statistics, or of ``profiles`` of metrics, and ``clustering`` of these.
``diversity`` of captions and images, and its ``rank_correlation`` with the effects.

At scale: ``top_pool`` is the simplest of the best of a pyramid; ``strategies`` tabulates
repetition against new rows, ``repetition`` says where it stops paying and ``effective_data`` fits
the law; ``compute_scaling`` predicts effects from a ``power_law`` per arm. Both fit with
``curve_fit`` over replicates of ``seed_bootstrap``.

"""
