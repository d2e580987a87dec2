"""The search for thresholds on the score of trials.

``space`` has the windows of the searched statistics, ``search`` proposes some of them and is told
their scores, ``proposals`` ties it to the first study, ``outcome`` is what it leaves behind.
"""
