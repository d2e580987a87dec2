"""From files to a table of samples with random access.

``source`` says what a source is, a list of shards, and ``media`` of what samples are made.
``parquet``, ``webdataset``, ``jsonl`` (found by ``source_files``) and ``shapes`` (drawn by
``world``: generated pairs with known truth) are among the built-in ones. ``json_files`` cuts files
of objects into shards; ``entries``, ``conversation`` and ``interleaved`` say what an object is.
``prepare`` applies what may be asked of any source (rows, spoilt captions) and sets bad samples
aside, with ``images`` and ``media`` to decode them. ``ingest`` sends the shards through Ray Data;
workers write them as Lance ``fragments``, the driver commits these in shard order. What lies in
``staging`` by then is gone on with after a kill; ``complete`` marks what is whole. ``sample_table``
reads the result by ``row_id``; ``leaks`` compares two tables, of which ``media_digests`` tell the
media; ``writers`` gives rows to others as files. Whatever runs in Ray does so by ``tasks``.

Nothing is exported here: reading a configuration must not import Ray and Lance.
"""
