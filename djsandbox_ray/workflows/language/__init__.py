"""Workflows as YAML: jobs, references, types, checks, rounds."""
