"""The CLIP family: contrastive image-text models built by open_clip.

``arch.py`` finds the open_clip configuration and its tokenizer, ``samples.py`` decodes and
tokenises every sample once and shares the arrays, ``training.py`` is the loop, ``family.py`` ties
them to trials, ``export.py`` saves a model as a Hugging Face folder.
"""
