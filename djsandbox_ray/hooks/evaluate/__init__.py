"""Evaluate: judge what was trained - verdicts, choices among them, clusters, interactions."""
