"""The CLIP family: contrastive image-text models built by open_clip.

``arch.py`` finds the open_clip configuration (two are in ``archs/``) with its tokenizer, and
counts operations; ``samples.py`` decodes and tokenises every sample once and shares the arrays;
``training.py`` is the loop, with the ``VERSION`` of what it computes; ``family.py`` ties them to
trials; ``export.py`` saves a model as a Hugging Face folder, and ``scorer.py`` trains one for
``image_text_similarity_filter``.
"""
