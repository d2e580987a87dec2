"""Statistics that a language model behind an OpenAI-compatible URL gives.

Data-Juicer's operators write the prompts and read the answers, also how often they ask again for
one that cannot be read; in place of its client they get ours. That one asks about many samples at
once, waits and tries again where the server is busy or away, keeps every answer before it goes on
(``answers``), and stops at a budget.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from pydantic import Field, field_validator
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.masking import names_secret, without_secrets
from djsandbox_ray.settings.sections import MOST_SECONDS, Section
from djsandbox_ray.stats.answers import Answers, Reply, digest_of
from djsandbox_ray.stats.datajuicer import load

_BUSY = (408, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""
_NOT_OF_THE_SAMPLE = (301, 302, 303, 307, 308, 401, 402, 403, 404, 405)
"""Statuses that every request would get: the URL, the key, the model or the account is wrong."""
_IN_VAIN = 64
"""Samples after which it is no fault of theirs if no answer at all could be read."""


class EndpointConfig(Section):
    """Where operators find a language model. Nothing of it changes what statistics are."""

    url: str
    """What stands before ``/chat/completions``: ``http://127.0.0.1:8000/v1``."""
    key_variable: str | None = "OPENAI_API_KEY"
    """The environment variable that holds the key, on the node where the requests are made; null
    for a server that wants none. The key itself is nowhere else."""
    concurrency: int = Field(8, ge=1, le=1000)
    """Requests under way at once."""
    retries: int = Field(6, ge=0, le=100)
    """How often a request is made again after a time-out, a lost connection, 429 or 5xx; the waits
    double from half a second to two minutes, unless the server says how long."""
    timeout: float = Field(120.0, gt=0, le=MOST_SECONDS)
    """Seconds that the server may be silent."""
    budget_tokens: int | None = Field(None, ge=1)
    """Tokens that one operator's answers may cost, those of earlier runs included: no sample is
    begun beyond it. Those under way may exceed it."""

    @field_validator("url")
    @classmethod
    def _an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an address such as http://127.0.0.1:8000/v1 is needed")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("an address without user, password and query: the key has a variable")
        return url.rstrip("/")

    @field_validator("key_variable")
    @classmethod
    def _a_secret(cls, name: str | None) -> str | None:
        if name is not None and not names_secret(name):
            raise ValueError(
                "a name that ends in API_KEY, TOKEN or the like is needed: by it the value is "
                "known as a secret, which no log may show"
            )
        return name

    def key(self) -> str | None:
        """Return the key, if the server wants one.

        Raises:
            BadInput: the variable is not set, or holds what no header can.
        """
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise BadInput(
                f"statistics.endpoint.key_variable: the environment variable {self.key_variable} "
                "holds no key here"
            )
        return key


class _Ended(BaseException):
    """Carries an error past Data-Juicer, which goes on after every ``Exception``."""

    def __init__(self, error: SandboxError) -> None:
        super().__init__(str(error))
        self.error = error


class _Unreadable(Exception):
    """The server gave no text for this sample."""


class _Row(threading.local):
    """What the requests about the sample of this thread came to."""

    tokens: int = 0
    asked: bool = False
    text: str = ""
    why: str = ""
    """There is no text in the last answer."""
    refused: bool = False
    """Whether the server refuses this very sample."""


class Client:
    """Stands for Data-Juicer's client of one model.

    Args:
        settings: the endpoint.
        model: its name; None for the server's own.
        endpoint: the path after the URL.
        response_path: where the text is in an answer.

    Raises:
        BadInput: the key is not there, or the path is an address.
    """

    last_response: dict[str, Any] | None = None
    """Read by some operators, for usage that is counted here."""

    def __init__(
        self,
        settings: EndpointConfig,
        model: str | None,
        endpoint: str | None = None,
        response_path: str | None = None,
    ) -> None:
        path = endpoint or "/chat/completions"
        if "://" in path:
            raise BadInput(
                f"api_endpoint: a path such as /chat/completions is needed, not {path!r}; the "
                "address is statistics.endpoint.url"
            )
        self._settings, self._model = settings, model
        self._url = f"{settings.url}/{path.lstrip('/')}"
        self._path = (response_path or "choices.0.message.content").split(".")
        self._key = settings.key()
        self._session = _session(settings)
        self.row = _Row()

    def __call__(self, messages: Sequence[Mapping[str, str]], **sampling: Any) -> str:
        """Ask, as Data-Juicer's client does.

        Raises:
            _Unreadable: the server gave no text; Data-Juicer may try again.
            _Ended: nobody's request can succeed now.
        """
        self.row.asked = True
        if self.row.refused:
            raise _Unreadable(self.row.why)
        try:
            answer = self._post({"messages": list(messages), "model": self._model, **sampling})
            self.row.tokens += self._cost(answer)
            self.row.text, self.row.why = _text_at(answer, self._path), ""
        except _Unreadable as error:
            self.row.text, self.row.why = "", str(error)
            raise
        return self.row.text

    def _post(self, body: dict[str, Any]) -> Any:
        try:
            answer = self._session.post(
                self._url,
                json=body,
                auth=self._signed,
                timeout=self._settings.timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise _Ended(self._away(f"{type(error).__name__}: {error}")) from None
        said = without_secrets(answer.text)[:300]  # a secret that is cut is not known for one
        if answer.status_code in _BUSY:
            raise _Ended(self._away(f"{answer.status_code}: {said}"))
        if answer.status_code in _NOT_OF_THE_SAMPLE:
            raise _Ended(
                BadInput(
                    f"statistics.endpoint: {self._url} refuses with {answer.status_code}: {said} "
                    f"(model {self._model!r}, key from {self._settings.key_variable})"
                )
            )
        if not answer.ok:
            self.row.refused = True
            raise _Unreadable(f"the endpoint refuses it with {answer.status_code}: {said}")
        try:
            return answer.json()
        except requests.JSONDecodeError:
            raise _Unreadable(f"the endpoint did not answer in JSON: {said!r:.80}") from None

    def _signed(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the key; by this, what a file of passwords says of the host is not added instead."""
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _away(self, why: str) -> SandboxError:
        return SandboxError(
            f"statistics.endpoint: {self._url} gave no answer in {self._settings.retries + 1} "
            f"tries, the last: {without_secrets(why)[:300]}; what was answered is kept, and the "
            "same command goes on from there"
        )

    def _cost(self, answer: Any) -> int:
        usage = answer.get("usage") if isinstance(answer, dict) else None
        tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
        if isinstance(tokens, int) and tokens >= 0:
            return tokens
        if self._settings.budget_tokens is None:
            return 0
        raise _Ended(
            BadInput(
                "statistics.endpoint.budget_tokens: the server does not say what an answer costs "
                "(usage.total_tokens), so that no budget can be kept; leave it out"
            )
        )


def _session(settings: EndpointConfig) -> requests.Session:
    retry = Retry(
        total=settings.retries,
        allowed_methods=None,  # a question that is asked twice does no harm but its price
        status_forcelist=_BUSY,
        backoff_factor=0.5,
        backoff_jitter=0.5,
        raise_on_status=False,
        retry_after_max=600,
    )
    session = requests.Session()
    most = settings.concurrency
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=most, max_retries=retry)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _text_at(answer: Any, path: Sequence[str]) -> str:
    found = answer
    try:
        for step in path:
            found = found[int(step) if isinstance(found, list) else step]
    except (LookupError, TypeError, ValueError):
        raise _Unreadable(f"the answer has no {'.'.join(path)}") from None
    if not isinstance(found, str) or not found.strip():
        raise _Unreadable("the answer is empty")
    return found


class Asking:
    """Computes the statistic of one operator for batches, by asking about many samples at once.

    Args:
        operator: Data-Juicer's, built.
        keys: the statistics that it writes.
        settings: the endpoint.
        answers: those that are paid for.

    Raises:
        BadInput: the operator's parameters ask for what is not to be had here.
    """

    def __init__(
        self, operator: Any, keys: Sequence[str], settings: EndpointConfig, answers: Answers
    ) -> None:
        asked_for = dict(operator.model_key.keywords)
        known = {name: asked_for.pop(name, None) for name in ("model", "endpoint", "response_path")}
        if asked_for:
            raise BadInput(f"model_params: {sorted(asked_for)} are those of statistics.endpoint")
        if set(read := getattr(operator, "input_keys", ["text"])) - {"text"}:
            raise BadInput(f"input_keys: a sample has its text only, not {read}")
        self._client = client = Client(settings, **known)
        operator.model_key = lambda **_device: client  # as Data-Juicer's get_model calls it
        load().get_model(operator.model_key)  # once, before there are threads
        self._operator, self._keys = operator, tuple(keys)
        self._answers, self._settings = answers, settings
        self._unreadable = ""

    def __call__(self, batch: dict[str, list[Any]]) -> None:
        """Write the statistics of a batch; all its samples are asked about before an error.

        Raises:
            ValueError: of some sample no answer could be read: says why.
            SandboxError: the budget is spent, the endpoint is away or refuses, or none of many
                answers could be read.
        """
        texts = {digest_of(text): text for text in batch["text"] if text is not None}
        lacking = [digest for digest in texts if self._answers.get(digest) is None]
        if lacking:
            self._ask_about([texts[digest] for digest in lacking])
        for text, stats in zip(batch["text"], batch[load().stats_field], strict=True):
            if text is None:
                raise ValueError("there is no text")
            answer = cast(Reply, self._answers.get(digest_of(text)))
            if answer.reason:
                raise ValueError(answer.reason)
            stats.update(answer.values)

    def _ask_about(self, texts: Sequence[str]) -> None:
        ended = threading.Event()

        def ask(text: str) -> None:
            if ended.is_set():
                return
            try:
                self._ask(text)
            except BaseException:
                ended.set()  # before this thread takes the next
                raise

        pool = ThreadPoolExecutor(self._settings.concurrency)
        try:
            asked = [pool.submit(ask, text) for text in texts]
            done, _ = wait(asked, return_when=FIRST_EXCEPTION)
        finally:
            pool.shutdown(cancel_futures=True)
            self._answers.close_batch()
        for future in done:
            future.result()

    def _ask(self, text: str) -> None:
        if len(self._answers) >= _IN_VAIN and not self._answers.any_readable:
            raise BadInput(
                f"statistics.endpoint: of {len(self._answers)} samples no answer could be read, "
                f"one of them: {self._unreadable}; mend it, and the same command asks again"
            )
        budget, spent = self._settings.budget_tokens, self._answers.tokens
        if budget is not None and spent >= budget:
            raise SandboxError(
                f"statistics.endpoint.budget_tokens: {spent:,} of {budget:,} tokens are spent, for "
                f"{len(self._answers):,} samples; what was answered is kept, and with a larger "
                "budget the same command goes on from there"
            )
        row = self._client.row
        row.tokens, row.asked, row.text, row.why, row.refused = 0, False, "", "", False
        stats: dict[str, Any] = {}
        try:
            self._operator.compute_stats_single({"text": text, load().stats_field: stats})
        except _Ended as end:
            raise end.error from None
        reason = self._unread(stats)
        self._unreadable = reason or self._unreadable
        values = {} if reason else {key: float(stats[key]) for key in self._keys}
        self._answers.put(digest_of(text), Reply(values, row.tokens, reason))

    def _unread(self, stats: Mapping[str, Any]) -> str:
        """Say why a sample has no value; Data-Juicer writes 0 or false for what it cannot read.

        A score that was read is at least a fifth.
        """
        row = self._client.row
        values = [stats.get(key) for key in self._keys]
        condition = any(value is False for value in values)  # 0.0 is what a score has instead
        said_no = condition and row.text.strip().lower().startswith("n")
        if not row.asked or said_no or all(values):
            return ""
        return row.why or f"no answer could be read, the last: {row.text!r:.100}"
