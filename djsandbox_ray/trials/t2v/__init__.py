"""The text-to-video family: a base that makes videos of prompts is adapted to the clips of a pool.

``schedule.py`` is the algebra of noise, the same for flows and for variance-preserving diffusion;
``codec.py`` turns frames into latents and back, ``patches.py`` without anything that is trained;
``denoisers.py`` calls the transformers of diffusers as their own pipelines do.
``training_clips.py`` reads videos, ``latents.py`` stores what the codec makes of them,
``stored_prompts.py`` what the text encoder makes of captions, once for all trials by
``encoding.py``. ``base_folder.py`` reads the base, a folder, ``base.py`` copies it or has
``small.py`` train one; ``objective.py`` is what is learnt, ``evaluated.py`` what evaluators see,
``sampler.py`` makes videos for ``maker.py``, ``flops.py`` counts; ``family.py`` ties them to
trials. ``distil.py`` has a student learn of a teacher, with ``rewards.py``; ``evolution.py`` does
so stage by stage.
"""
