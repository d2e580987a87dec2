"""Runs on a Ray cluster elsewhere: submitted as a Ray job, followed, stopped and found again.

``submit.py`` checks a configuration here, has ``shipment.py`` gather what the job needs
(``named.py``: the files that the configuration names) and gives it to the cluster. ``jobs.py`` is
the list of jobs there, reached by ``dashboard.py``; ``follow.py`` shows the log of one until it is
over, and ``show.py`` says where it can be seen and how it stands. The job itself is
``djsandbox run``. ``commands.py`` is all of it on the command line.
"""
