"""What a run costs: before it, as a share of full trainings, and after it, stage by stage.

Before: ``config`` reads what a full training costs, and ``planner`` compares 1 + m r with M and
refuses what is over budget. After: stages measure themselves and hand over one
:class:`~djsandbox_ray.records.Cost` each (``trials`` makes that of a study from its trial records,
stopped and failed ones included; ``together`` that of several studies; ``held`` carries what is
spent below calls that return something else); ``cost`` adds them up and gives them their JSON
form. Pure: no cluster and no model is needed to add up what they cost.
"""

from djsandbox_ray.ledger.config import CostConfig
from djsandbox_ray.ledger.cost import Total, from_json, to_json, total
from djsandbox_ray.ledger.held import held_cpu_seconds, note_held
from djsandbox_ray.ledger.planner import CostPlan, check, plan_cost
from djsandbox_ray.ledger.trials import StateCost, trial_cost, trial_costs_by_state

__all__ = [
    "CostConfig",
    "CostPlan",
    "StateCost",
    "Total",
    "check",
    "from_json",
    "held_cpu_seconds",
    "note_held",
    "plan_cost",
    "to_json",
    "total",
    "trial_cost",
    "trial_costs_by_state",
]
