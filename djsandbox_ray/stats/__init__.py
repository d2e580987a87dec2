"""Statistics: one number per sample and key, computed by Data-Juicer's own filters in Ray actors.

How data flows: ``operators`` reads the ``process`` list of the configuration into
:class:`~.operators.OperatorSpec`; ``compute`` cuts the sample table into ranges of rows, which Ray
Data streams to actors (``worker``, by :mod:`djsandbox_ray.nodes.actors`), each of which runs all
operators that are still to be computed in one pass over its range (``fused``), counts what a model
calculates per sample, and writes one file (``unfinished``). When all ranges are there, ``compute``
has them brought into the operators' own folders (``parts``, which also reads finished columns back,
one at a time). ``embeddings`` runs many images through a CLIP at once, for similarities and for
measures of diversity; ``temporary_videos`` brings those of a sample into files and closes what
operators opened. ``endpoint`` asks a language model behind an API in place of Data-Juicer's client,
and ``answers`` keeps what was paid for.

Beside it: ``catalogue`` lists every filter of the installed Data-Juicer, ``needs`` says what an
operator lacks here and ``remedies`` how to get it, ``models`` brings the folders that operators
name to the node, ``model_files`` finds what has a name only, ``inspection`` reads what a filter's
source tells (its statistics, which parameters influence them), and ``datajuicer`` is the only
module that imports Data-Juicer.
"""
