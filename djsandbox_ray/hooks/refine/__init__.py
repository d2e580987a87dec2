"""Refine: from what won to thresholds, to a recipe, to its acceptance by Data-Juicer."""
