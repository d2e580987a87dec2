"""Sections of a configuration: what they are built from, and how YAML is read into them."""
