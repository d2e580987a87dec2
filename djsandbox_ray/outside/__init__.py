"""Outside code: programs of others, in environments of their own, with files in and out.

``settings.py`` is what a configuration says of a program, and ``placeholders.py`` how its arguments
name files and numbers. ``snapshot.py`` brings its code to the nodes; ``environment.py`` makes its
virtual environment, once per node (``node.py``), or ``container.py`` its container;
``variables.py`` says which environment variables it sees. ``process.py`` runs it, with
``keeper.py`` between, which lets nothing outlive us. ``program.py`` puts these together.
``samples.py`` writes samples for it and ``measured.py`` reads what it has measured.
"""
