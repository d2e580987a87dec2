"""From finished trials to verdicts on pools."""
