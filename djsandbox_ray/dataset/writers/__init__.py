"""Rows of a sample table as files for others: formats of shards, and writing them resumably."""
