"""What a run will do, before anything is spent.

``plan`` is what ``djsandbox plan`` shows, with a drawing (``wiring``) and what it costs
(``budget``); ``power`` says what the planned study can find.
"""
