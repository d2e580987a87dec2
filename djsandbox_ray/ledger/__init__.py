"""What a run costs: before it, as a share of full trainings, and after it, stage by stage.

Before: ``planner`` reads what a full training costs, compares 1 + m r with M and refuses what is
over budget. After: stages measure themselves and hand over one :class:`~djsandbox_ray.records.Cost`
each, that of trials made from their records; ``cost`` adds them up and gives them their JSON form.
Pure: no cluster and no model is needed to add up what they cost.
"""
