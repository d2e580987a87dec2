"""Tier 2, the behaviour of a run: one small hook per kind of job, typed in and out.

A hook takes records, puts capabilities to work as the configuration says, and returns a record.
In the order of a run: ``ingest``, ``leaks``, ``scorer``, ``statistics``, ``pools``, ``noise``,
``trials``, ``ranking``, ``confirmation``, ``learning_rate``, ``ledger``, ``report``. Those that
train share ``conduct.py`` and ``study.py``, which ``watch.py`` shows while it runs and
``results.py`` reads back; ``model.py`` says which model it is.
"""

# Importing a module registers its hook.
import djsandbox_ray.hooks.acceptance
import djsandbox_ray.hooks.choice
import djsandbox_ray.hooks.clusters
import djsandbox_ray.hooks.combine
import djsandbox_ray.hooks.confirmation
import djsandbox_ray.hooks.diversity
import djsandbox_ray.hooks.ingest
import djsandbox_ray.hooks.insights
import djsandbox_ray.hooks.interactions
import djsandbox_ray.hooks.leaks
import djsandbox_ray.hooks.learning_rate
import djsandbox_ray.hooks.ledger
import djsandbox_ray.hooks.noise
import djsandbox_ray.hooks.pools
import djsandbox_ray.hooks.ranking
import djsandbox_ray.hooks.recipe
import djsandbox_ray.hooks.refine
import djsandbox_ray.hooks.repetition
import djsandbox_ray.hooks.report
import djsandbox_ray.hooks.scaling
import djsandbox_ray.hooks.scorer
import djsandbox_ray.hooks.search
import djsandbox_ray.hooks.statistics
import djsandbox_ray.hooks.trials  # noqa: F401
