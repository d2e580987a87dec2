"""Whether a sample can be used: an image that decodes, a caption that says something."""

from __future__ import annotations

from djsandbox_ray.dataset.images import decode
from djsandbox_ray.dataset.source import Rejection, Sample
from djsandbox_ray.identity import canonical


def check(sample: Sample) -> Rejection | None:
    """Return why a sample is set aside, or None when it can be used.

    Types are checked too, since sources may be a user's own.
    """
    found = _text_fault(sample.text) or _image_fault(sample.image) or _meta_fault(sample.meta)
    return Rejection(sample.source, *found) if found else None


def _text_fault(text: object) -> tuple[str, str] | None:
    if not isinstance(text, str):
        return "bad_text", f"the caption is of type {type(text).__name__}, not text"
    if not text.strip():
        return "empty_caption", "the caption is empty or blank"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return "bad_text", str(error)
    return None


def _image_fault(image: object) -> tuple[str, str] | None:
    if not isinstance(image, bytes):
        return "missing_image", f"the image is of type {type(image).__name__}, not bytes"
    try:
        decode(image)
    except ValueError as error:
        return "bad_image", str(error)
    return None


def _meta_fault(meta: object) -> tuple[str, str] | None:
    if not isinstance(meta, dict):
        return "bad_meta", f"the meta data is of type {type(meta).__name__}, not an object"
    try:
        canonical(meta)
    except (TypeError, ValueError) as error:
        return "bad_meta", str(error)
    return None
