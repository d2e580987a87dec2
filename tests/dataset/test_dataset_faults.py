"""What is no fault of a row never becomes its rejection."""

from __future__ import annotations

import errno
from typing import NoReturn

import pytest

from djsandbox_ray.dataset.arrow_rows import is_damage
from djsandbox_ray.dataset.faults import attempt, is_failing, kept_meta
from djsandbox_ray.dataset.source import Rejection, Remark
from djsandbox_ray.errors import SandboxError


def _raising(error: Exception) -> NoReturn:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ESTALE, "stale file handle"),
        ConnectionResetError(),
        SandboxError("the disk fails"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_wrong_with_the_machine_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        attempt("a#0", lambda: _raising(error))
    with pytest.raises(type(error)):
        kept_meta("a#0", lambda: _raising(error))


@pytest.mark.parametrize("error", [ValueError("odd"), OSError("cannot identify"), KeyError("text")])
def test_what_is_wrong_with_a_row_is_told(error: Exception) -> None:
    (rejection,) = attempt("a#0", lambda: _raising(error))
    assert isinstance(rejection, Rejection)
    assert rejection.reason == "unreadable"
    meta, (remark,) = kept_meta("a#0", lambda: _raising(error))
    assert meta == {}
    assert isinstance(remark, Remark)


@pytest.mark.parametrize(
    ("code", "fails"),
    [
        ("SlowDown", True),
        ("ServiceUnavailable", True),
        ("InternalError", True),
        ("ExpiredToken", True),
        ("SignatureDoesNotMatch", True),
        ("AccessDenied", False),
        ("NoSuchKey", False),
    ],
)
def test_what_an_object_store_says_of_all_requests_is_no_fault_of_a_row(
    code: str, fails: bool
) -> None:
    s3fs_errors = pytest.importorskip("s3fs.errors", reason="the extra 's3' is not installed")
    botocore = pytest.importorskip("botocore.exceptions")
    said = {"Error": {"Code": code, "Message": "no"}}
    error = s3fs_errors.translate_boto_error(botocore.ClientError(said, "GetObject"))
    assert is_failing(error) == fails


class HttpError(Exception):
    """As gcsfs has it, which need not be installed."""

    __module__ = "gcsfs.retry"

    def __init__(self, code: int | str, message: str) -> None:
        super().__init__(f"{message}, {code}")
        self.code = code


class RefreshError(Exception):
    """As Google's library for credentials has it."""

    __module__ = "google.auth.exceptions"


_NO_ACCESS = (
    "Forbidden: bucket/a.jpg\nme@example.com does not have storage.objects.get access to the "
    "Google Cloud Storage object. Permission 'storage.objects.get' denied on resource (or it may "
    "not exist)."
)


@pytest.mark.parametrize(
    ("error", "fails"),
    [
        (HttpError(401, "Invalid Credentials"), True),
        (HttpError("401", "Anonymous caller does not have storage.objects.get access"), True),
        (HttpError(503, "backend"), True),
        (RefreshError("invalid_grant: Token has been expired or revoked."), True),
        (OSError("Forbidden: bucket/a.parquet\nThe billing account is disabled."), True),
        (OSError("Forbidden"), True),
        (
            ValueError("Bad Request: bucket/a\nRequest had invalid authentication credentials."),
            True,
        ),
        (OSError(_NO_ACCESS), False),
        (ValueError("Bad Request: bucket/a\ninvalid argument"), False),
    ],
)
def test_what_google_says_of_all_requests_is_no_fault_of_a_row(
    error: Exception, fails: bool
) -> None:
    assert is_failing(error) == fails
    if fails:
        assert not is_damage(error)
        with pytest.raises(type(error)):
            attempt("a#0", lambda: _raising(error))


def test_a_whole_file_that_may_not_be_read_is_not_taken_for_damaged() -> None:
    assert not is_damage(OSError(_NO_ACCESS))
    assert not is_damage(PermissionError(errno.EACCES, "permission denied"))
    assert is_damage(OSError("Couldn't deserialize thrift"))


def test_a_store_that_does_not_answer_is_no_fault_of_a_row() -> None:
    botocore = pytest.importorskip("botocore.exceptions", reason="the extra 's3' is missing")
    error = botocore.EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
    assert is_failing(error)
    with pytest.raises(botocore.EndpointConnectionError):
        attempt("a#0", lambda: _raising(error))


@pytest.mark.parametrize(
    ("status", "fails"), [(403, False), (410, False), (429, True), (503, True)]
)
def test_what_a_server_says_of_one_file_is_the_fault_of_its_row(status: int, fails: bool) -> None:
    aiohttp = pytest.importorskip("aiohttp", reason="it comes with clients of object stores")
    error = aiohttp.ClientResponseError(None, (), status=status)
    assert is_failing(error) == fails
    assert is_failing(aiohttp.ServerDisconnectedError())
    assert not is_failing(aiohttp.InvalidURL("http://[x"))


def test_a_file_that_may_not_be_read_is_the_fault_of_its_row() -> None:
    assert not is_failing(PermissionError(errno.EACCES, "permission denied"))


@pytest.mark.parametrize("number", [errno.EIO, errno.EAGAIN])
def test_a_video_that_ends_too_early_is_no_failing_disk(number: int) -> None:
    av_error = pytest.importorskip("av.error", reason="the extra 'video' is not installed")
    with pytest.raises(av_error.FFmpegError) as caught:
        av_error.err_check(-number)
    assert not is_failing(caught.value)
    assert is_failing(OSError(number, "the disk"))
