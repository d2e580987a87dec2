"""The floating-point operations of an operator's model, seen by torch's own counter."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from djsandbox_ray.errors import require
from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.operators import OperatorSpec

# Kinds of Data-Juicer's models that run in torch, and those whose work torch does not see. The
# others (tokenizers, n-gram tables) look up and do not calculate.
_SEEN = frozenset({"huggingface", "simple_aesthetics"})
_UNSEEN = frozenset({"api", "fasttext", "opencv_classifier", "spacy"})


def count_flops(spec: OperatorSpec, compute: Callable[[], None]) -> float | None:
    """Return the floating-point operations of ``compute``, which runs the operator's model.

    Returns:
        0 for an operator without a model, which is not called; None for one whose model torch
        cannot count.
    """
    kinds = _model_kinds(spec)
    if kinds & _UNSEEN:
        return None
    if not kinds & _SEEN or "torch" not in sys.modules:  # a tokenizer may do without torch
        return 0.0
    counter = require("torch.utils.flop_counter", "clip").FlopCounterMode(display=False)
    try:
        with _plain_attention(), counter:
            compute()
    except Exception:  # a model that torch cannot take apart still has its statistics
        return None
    return float(counter.get_total_flops())


def _model_kinds(spec: OperatorSpec) -> set[str]:
    kinds = set(inspection.prepared_models(spec.filter_class))
    if "api_or_hf_model" in inspection.parameters(spec.filter_class):
        kinds.add("huggingface" if spec.params.get("is_hf_model") else "api")  # an API by default
    return kinds


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Have attention done in plain matrix products: the counter does not see fused kernels."""
    attention = require("torch.nn.attention", "clip")
    fast = require("torch.backends.mha", "clip")
    before = fast.get_fastpath_enabled()
    fast.set_fastpath_enabled(False)
    try:
        with attention.sdpa_kernel(attention.SDPBackend.MATH):
            yield
    finally:
        fast.set_fastpath_enabled(before)
