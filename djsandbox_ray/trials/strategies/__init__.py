"""How the workers of a trial share one model.

``strategy.py`` is the extension point, with plain PyTorch for one worker and DDP, which keeps a
copy on every worker; ``fsdp.py`` (FSDP2) and ``deepspeed.py`` (ZeRO) share the weights out.
"""
