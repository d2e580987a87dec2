"""What a run costs: before it, as a share of full trainings, and after it, stage by stage.

Before: ``config`` reads what a full training costs, and ``planner`` compares 1 + m r with M and
refuses what is over budget. After: stages measure themselves and hand over one
:class:`~djsandbox_ray.records.Cost` each (``trials`` makes that of a study from its trial records,
stopped and failed ones included; ``together`` that of several studies; ``held`` carries what is
spent below calls that return something else); ``cost`` adds them up and gives them their JSON
form. Pure: no cluster and no model is needed to add up what they cost.

"""
