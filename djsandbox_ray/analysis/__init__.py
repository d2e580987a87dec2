"""From the metrics of trials to verdicts on pools; pure: numpy and scipy only.

``verdicts/``  ``grid`` checks the trials, ``scores`` makes them numbers, ``ranking`` compares and
               ranks the pools, with ``verdicts`` (intervals from ``arm_noise``, which stands on
               ``variances``), ``collapse`` and ``shrinkage``; ``sensitivity`` says which metrics
               see something; ``racing`` gives pools up on the way, ``second_look`` looks again.
               ``design`` is what all of that is planned by, with ``dunnett`` for what cannot be
               better.
``planning/``  before a study: ``noise`` says which effects it can find (``posterior``: how sure
               that is), ``power`` which study is the cheapest that finds one, ``sight`` why one
               may see little.
``together/``  ``interactions`` and ``surrogate`` of a pyramid, by ``contrasts`` of arms;
               ``clusters`` by ``correlation``; ``winner``: what a recipe stands on.
``scale/``     ``repetition`` with the law of ``effective_data``; ``compute_scaling`` with a
               ``power_law``, both by ``fitting``; ``diversity`` of captions and images.

``scipy.stats`` takes most of a second to import, and is imported where something is computed: a
plan computes nothing of it, and is to answer at once.
"""
