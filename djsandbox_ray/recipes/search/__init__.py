"""The search for thresholds: a space of windows, proposals, trials that score them, a report."""
