"""Where artifacts lie: ``files`` on any URL, what is in them in ``store``, a node's ``cache``.

``hub`` brings a folder to Hugging Face's.
"""
