"""Tier 2, the behaviour of a run: one small hook per kind of job, typed in and out.

A hook takes records, puts capabilities to work as the configuration says, and returns a record. A
folder per phase: ``probe``, ``execute``, ``evaluate``, ``refine``, ``report``. Beside them is what
hooks share: those that train use ``conduct.py`` and ``study.py``, which ``watch.py`` shows and
``results.py`` reads back; ``model.py`` says which model it is, ``seeds.py`` which seeds,
``bounds.py`` how many pools there will be at most. Hooks know nothing of each other: a workflow
brings them together.
"""

# Importing a module registers its hook.
import djsandbox_ray.hooks.evaluate.choice
import djsandbox_ray.hooks.evaluate.clusters
import djsandbox_ray.hooks.evaluate.interactions
import djsandbox_ray.hooks.evaluate.ranking
import djsandbox_ray.hooks.execute.combine
import djsandbox_ray.hooks.execute.confirmation
import djsandbox_ray.hooks.execute.learning_rate
import djsandbox_ray.hooks.execute.noise
import djsandbox_ray.hooks.execute.repetition
import djsandbox_ray.hooks.execute.scaling
import djsandbox_ray.hooks.execute.search
import djsandbox_ray.hooks.execute.trials
import djsandbox_ray.hooks.probe.diversity
import djsandbox_ray.hooks.probe.ingest
import djsandbox_ray.hooks.probe.leaks
import djsandbox_ray.hooks.probe.pools
import djsandbox_ray.hooks.probe.scorer
import djsandbox_ray.hooks.probe.statistics
import djsandbox_ray.hooks.refine.acceptance
import djsandbox_ray.hooks.refine.recipe
import djsandbox_ray.hooks.refine.thresholds
import djsandbox_ray.hooks.report.insights
import djsandbox_ray.hooks.report.ledger
import djsandbox_ray.hooks.report.report  # noqa: F401
