"""Recipes: from verdicts to thresholds that Data-Juicer applies to all of the data.

How data flows: a refiner (``refiner`` has the extension point and the built-in ones) proposes a
range per statistic, whose ends ``bounds`` puts where rounding errors cannot reach them; ``search``
tunes ranges on the score of trials instead. ``ranges`` turns ranges into the parameters of
Data-Juicer's operators and says which rows they keep; ``policy`` finds the limits that such rows
break; ``export`` writes the YAML for Data-Juicer and ``evidence`` what speaks for it and what
against it. ``recipe_file`` reads a recipe back, ``acceptance`` has Data-Juicer itself run it
(``executor``) and compares the rows that it keeps with what the statistics promised.
"""
