"""What a run will do, before anything is spent.

``plan`` is what ``djsandbox plan`` shows, with a drawing (``wiring``), what it costs (``budget``)
and what a language model is asked (``api_requests``); ``power`` says what the planned study can
find.
"""
