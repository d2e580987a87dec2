"""Runs on a Ray cluster elsewhere: submitted as a Ray job, followed, stopped and found again.

``submit.py`` checks a configuration here, has ``shipment.py`` gather what the job needs and gives
it to the cluster. ``cluster_jobs.py`` is the list of jobs there, reached by ``dashboard.py``, and
shows the log of one until it is over. The job itself is ``djsandbox run``. ``commands.py`` is all
of it on the command line, and says where a job can be seen and how it stands.
"""
