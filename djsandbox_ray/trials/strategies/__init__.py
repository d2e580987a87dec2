"""How the workers of a trial share one model: one module per strategy.

``strategy.py`` is the extension point: it wraps a model and its optimizer, takes steps, gives the
whole model back for evaluation, and saves and loads. ``single.py`` is plain PyTorch for one worker,
``ddp.py`` keeps a copy on every worker, ``fsdp.py`` (FSDP2) and ``deepspeed.py`` (ZeRO) share the
weights out; ``deepspeed_settings.py`` joins the user's DeepSpeed JSON with what the trial decides.
``share.py`` picks one. A training loop calls a strategy alike whichever it is.
"""
