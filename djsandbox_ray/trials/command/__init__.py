"""The command family: trainings by programs of others, one call per rung.

``config.py`` is its section, ``family.py`` the contract: samples in, a model and numbers out.
"""
