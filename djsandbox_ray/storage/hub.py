"""What the hub of Hugging Face shows of a folder, a dataset or a model, and pushing it there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.masking import without_secrets

RepositoryKind = Literal["dataset", "model"]
CARD = "README.md"
"""The file that the hub shows."""
_REFUSED = (400, 401, 403, 404, 409)
"""What the hub answers to a token that may not, or a name that cannot be."""


def card(title: str, paragraphs: Sequence[str], facts: Mapping[str, Any]) -> str:
    """Return a card of the hub: what it reads as YAML, and what people read.

    Args:
        title: the heading.
        paragraphs: below it, in Markdown.
        facts: for the hub.
    """
    head = yaml.safe_dump({**facts, "tags": ["data-juicer", "djsandbox-ray"]}, sort_keys=False)
    return "\n\n".join([f"---\n{head}---", f"# {title}", *paragraphs]) + "\n"


def check_push(repository: str) -> None:
    """Look before the work whether a folder could be pushed at its end.

    Args:
        repository: ``owner/name``.

    Raises:
        BadInput: it is no such name, or there is no token.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise BadInput(f"--push {repository!r}: {error}") from None
    if repository.count("/") != 1:
        raise BadInput(f"--push {repository!r}: OWNER/NAME is needed")
    if not get_token():
        raise BadInput(
            "--push: there is no token of Hugging Face: set HF_TOKEN, or call `hf auth login`"
        )


def push(folder: Path, repository: str, kind: RepositoryKind, leave_out: Sequence[str] = ()) -> str:
    """Push all files of a folder; a repository that is not there is made, and is private.

    Args:
        folder: a local one.
        repository: ``owner/name``.
        kind: of the repository.
        leave_out: patterns of names that stay here.

    Returns:
        The address of the repository.

    Raises:
        BadInput: the hub refuses the token or the name.
        SandboxError: the hub does not answer; the folder stays, and may be pushed again.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        with _online():
            made = api.create_repo(repository, repo_type=kind, private=True, exist_ok=True)
            api.upload_folder(
                repo_id=repository,
                repo_type=kind,
                folder_path=folder,
                ignore_patterns=list(leave_out),
                commit_message="From djsandbox_ray",
            )
    except Exception as error:  # of the hub, of the network, of whichever client is below
        response = error.response if isinstance(error, HfHubHTTPError) else None
        lines = [line for line in str(error).splitlines() if line.strip()]
        why = lines[0] if lines else type(error).__name__
        said = f"pushing to {repository!r} failed: {without_secrets(why)}"
        if response is not None and response.status_code in _REFUSED:
            raise BadInput(f"{said} (may the token write there?)") from None
        raise SandboxError(f"{said}; what was written is in {folder}") from None
    return str(made)


@contextmanager
def _online() -> Iterator[None]:
    """Let the hub's client reach it: else nothing here does, as runs download nothing unasked."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, False
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
