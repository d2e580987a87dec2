"""Recipes: from verdicts to thresholds that Data-Juicer applies to all of the data.

How data flows: ``winner`` says which pool a recipe stands on; a refiner (``refiner`` is the
extension point; ``percentile``, ``k_sigma`` and ``model_feedback`` are built in) proposes a range
per statistic, whose ends ``bounds`` puts where rounding errors cannot reach them; ``search`` tunes
ranges on the score of trials instead. ``ranges`` turns ranges into the parameters of Data-Juicer's
operators and says which rows they keep; ``policy`` finds the limits (``config``) that such rows
break; ``export`` writes the YAML for Data-Juicer and ``evidence`` what speaks for it and what
against it. ``acceptance`` has Data-Juicer itself run the recipe and compares the rows that it keeps
with what the statistics promised; ``materialise`` writes the rows out for trainers elsewhere.

"""
