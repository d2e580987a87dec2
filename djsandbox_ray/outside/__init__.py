"""Outside code: programs of others, in environments of their own, with files in and out.

``config.py`` is what a configuration says of a program, placeholders in its arguments included.
``program.py`` is one that is ready to be called on any node, with its code as it was. It runs in a
virtual environment, made once per node (``environment.py``, which also gives folders for files
while it runs), or in a container (``container.py``). ``process.py`` runs it with few variables, and
with ``keeper.py`` between, which lets nothing outlive us. ``exchange.py`` writes samples for it and
reads what it has measured.
"""
