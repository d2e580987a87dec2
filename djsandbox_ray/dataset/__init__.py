"""From files to a table of samples with random access.

``source`` says what a source is; ``parquet``, ``webdataset``, ``jsonl`` (found by ``files``) and
``shapes`` (``world`` and ``defects``: generated pairs with known truth) are the built-in ones. A
source is a list of shards. ``prepare`` applies what may be asked of any source (rows, spoilt
captions; ``aside`` holds what waits for others) and sets bad samples aside (``validate``,
``images``). ``ingest`` sends the shards through
Ray Data; workers write them as Lance ``fragments`` to a ``staging`` folder, the driver commits
these in shard order. ``table`` reads the result by ``row_id``; ``leaks`` compares two tables.

Only sources are exported here: reading a configuration must not import Ray and Lance.

"""
