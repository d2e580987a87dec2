"""Probe: read the data, compute its statistics, cut it into pools, look at how varied they are."""
