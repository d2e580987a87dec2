"""The text-to-video family: a denoiser of latents, that is adapted to the videos of a pool.

``schedule.py`` is the algebra of noise, the same for flows and for variance-preserving diffusion;
``codec.py`` turns frames into latents and back, ``patches.py`` without anything that is trained;
``denoisers.py`` calls the transformers of diffusers as their own pipelines do.
"""
