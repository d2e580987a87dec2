"""The connection to a cluster's dashboard, which takes jobs: found and checked within seconds."""

from __future__ import annotations

import logging
import os
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import SplitResult, urlsplit
from urllib.request import urlopen

from djsandbox_ray.errors import BadInput
from djsandbox_ray.masking import without_secrets

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

PORT = 8265
"""At which Ray's dashboard listens unless it is told otherwise."""
DEFAULT_ADDRESS = f"http://127.0.0.1:{PORT}"
EXAMPLE = f"http://HEAD:{PORT}"
PATIENCE = 5.0
"""Seconds for the first answer."""

_TALKATIVE = (
    "ray._private.runtime_env.packaging",
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
)
_VARIABLE = "RAY_API_SERVER_ADDRESS"


def find_address(given: str | None) -> str:
    """Return the address of the dashboard: the given one, or that of the environment.

    Args:
        given: ``http://HEAD:8265`` or ``HEAD:8265``; without it ``RAY_API_SERVER_ADDRESS``, then
            ``RAY_ADDRESS``, then this machine's.

    Raises:
        BadInput: what was found is not the address of a dashboard.
    """
    named = {
        "--address": given,
        _VARIABLE: os.environ.get(_VARIABLE),
        "RAY_ADDRESS": os.environ.get("RAY_ADDRESS"),
    }
    where, address = next(((key, text) for key, text in named.items() if text), ("", None))
    if address is None or (where == "RAY_ADDRESS" and address in ("auto", "local")):
        return DEFAULT_ADDRESS
    if "://" not in address and where != "RAY_ADDRESS":
        address = f"http://{address}"
    parts = _split(address)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(
            f"{where}: {without_secrets(address)!r} is not the address of a Ray dashboard, which "
            f"takes the jobs: give --address {EXAMPLE}"
        )
    if parts.username is not None:
        raise BadInput(
            f"{where}: {without_secrets(address)!r}: Ray knows no users and passwords; its token "
            "comes from the environment: RAY_AUTH_MODE=token RAY_AUTH_TOKEN=..."
        )
    return address.rstrip("/")


def _split(address: str) -> SplitResult | None:
    """Return the parts of an address, its port a number; None if it has no such parts."""
    try:
        parts = urlsplit(address)
        return parts if parts.port != 0 else None
    except ValueError:
        return None


def connect_dashboard(address: str) -> JobSubmissionClient:
    """Return a client of the dashboard.

    Raises:
        BadInput: there is none, or it refuses this user.
    """
    shown = without_secrets(address)
    try:
        with urlopen(f"{address}/api/version", timeout=PATIENCE):
            pass
    except HTTPError:
        pass  # it answers; Ray's own client, which brings the token, says what is wrong
    except (OSError, ValueError, HTTPException) as error:
        # What no HTTP server says may be anything: nothing for a terminal.
        why = repr(error) if isinstance(error, HTTPException) else str(error)
        raise BadInput(
            f"no Ray dashboard answers at {shown}: {why}; is the cluster up, and is this the "
            f"address of its head, port {PORT} unless it says otherwise?"
        ) from None
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = address  # Ray prefers the environment to what it is given
    try:
        from ray.job_submission import JobSubmissionClient

        return JobSubmissionClient(address)
    except Exception as error:  # of requests, of Ray's own authentication, of a strange answer
        raise BadInput(f"{shown} takes no jobs: {error}") from error
    finally:
        os.environ.pop(_VARIABLE)
        if before is not None:
            os.environ[_VARIABLE] = before
