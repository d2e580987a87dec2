"""Any image-to-text model of transformers: by its auto classes and its processor's chat template.

``text.py`` has the processor turn conversations into tokens, and proves which of them are learnt;
``joined.py`` puts samples together as the processor would; ``base.py`` copies and loads the model,
a folder; ``modules.py`` says what of it is trained; ``objective.py`` is what is learnt,
``answerer.py`` what evaluators ask; ``family.py`` ties them to trials.
"""
