"""Statistics by an endpoint, against a server on real sockets that fails in every way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import TOKENS, ChatServer, Reply, chat_server
from conftest_stats import data_juicer_alone
from pydantic import ValidationError

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.stats.answers import Answers
from djsandbox_ray.stats.endpoint import Asking, EndpointConfig
from djsandbox_ray.stats.fused import Computed, FusedOperators
from djsandbox_ray.stats.needs import check_needs
from djsandbox_ray.stats.operators import OperatorSpec, operator_id
from djsandbox_ray.storage.store import Storage

QUALITY = OperatorSpec("llm_quality_score_filter", {"api_or_hf_model": "judge"})
KEY = "sk-test-0123456789abcdef"
TEXTS = [f"a caption with {'word ' * (row % 7)}number {row}" for row in range(20)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with chat_server() as running:
        yield running


def ask(
    server: ChatServer,
    storage: Storage,
    texts: Sequence[str] = TEXTS,
    spec: OperatorSpec = QUALITY,
    **settings: Any,
) -> Computed:
    config = EndpointConfig(url=server.url, **{"concurrency": 4, **settings})
    answers = Answers(storage, operator_id(spec))
    asking = {0: partial(Asking, settings=config, answers=answers)}
    (computed,) = FusedOperators([spec], asking=asking)(texts, None, [0])
    return computed


def values(computed: Computed) -> list[float]:
    (column,) = computed.columns.values()
    return column.tolist()


def expected(text: str) -> float:
    return sum(1 + (len(text) + index) % 5 for index in (4, 5, 6, 7)) / 4 / 5


def test_every_sample_is_asked_about_once_and_the_key_is_in_no_file(
    server: ChatServer, storage: Storage, tmp_path: Path
) -> None:
    computed = ask(server, storage, [*TEXTS, TEXTS[0]])
    assert values(computed) == pytest.approx([expected(text) for text in [*TEXTS, TEXTS[0]]])
    assert set(server.asked.values()) == {1}, "the same caption again is paid for once"
    assert server.keys == {f"Bearer {KEY}"}
    assert {body["model"] for body in server.bodies} == {"judge"}
    assert server.most_at_once <= 4
    assert values(ask(server, storage)) == values(computed)[:-1]
    assert set(server.asked.values()) == {1}, "nor by another run"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1, "a batch is one file in the end"
    assert KEY.encode() not in b"".join(path.read_bytes() for path in files)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openai") is None, reason="Data-Juicer's own client needs openai")
@pytest.mark.parametrize(
    "name",
    ["llm_quality_score_filter", "llm_difficulty_score_filter", "llm_analysis_filter"],
)
def test_values_are_those_of_data_juicer_alone(
    server: ChatServer, storage: Storage, tmp_path: Path, name: str
) -> None:
    spec = OperatorSpec(name, {"api_or_hf_model": "judge", "sampling_params": {"top_p": 0.9}})
    ours = values(ask(server, storage, spec=spec))
    bodies, server.bodies = server.bodies, []
    rows = [{"text": text, "media": {}} for text in TEXTS]
    reached = {"OPENAI_BASE_URL": server.url, "NO_PROXY": "127.0.0.1"}
    (theirs,) = data_juicer_alone(tmp_path, [(name, spec.params, False)], rows, **reached)
    assert ours == pytest.approx([row[spec.keys[0]] for row in theirs], rel=0, abs=1e-9)
    same = [
        sorted(json.dumps(body, sort_keys=True) for body in some)
        for some in (bodies, server.bodies)
    ]
    assert same[0] == same[1], "and the requests"


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(429, {"Retry-After": "1"}, b"slow down"),
        Reply(500, {}, b"oh"),
        Reply(503, {}, b"loading"),
        Reply(delay=3.0),
    ],
    ids=["429", "500", "503", "slow"],
)
def test_a_server_that_is_busy_is_asked_again(
    server: ChatServer, storage: Storage, trouble: Reply
) -> None:
    server.trouble = lambda text, before: trouble if text == TEXTS[3] and not before else None
    start = time.monotonic()
    computed = ask(server, storage, TEXTS[:6], timeout=1.0)
    assert not computed.failures
    assert values(computed) == pytest.approx([expected(text) for text in TEXTS[:6]])
    assert server.asked[TEXTS[3]] == 2
    if "Retry-After" in trouble.headers:
        assert time.monotonic() - start >= 1, "the server says how long to wait"


def test_a_server_that_stays_away_ends_the_run_and_what_was_answered_stays(
    server: ChatServer, storage: Storage
) -> None:
    server.trouble = lambda text, _before: Reply(500, {}, b"oh") if text == TEXTS[5] else None
    with pytest.raises(SandboxError, match=r"gave no answer in 2 tries, the last: 500: oh"):
        ask(server, storage, retries=1, concurrency=1)
    assert [server.asked[text] for text in TEXTS[:7]] == [1, 1, 1, 1, 1, 2, 0]
    server.trouble = lambda _text, _before: None
    assert not ask(server, storage, concurrency=1).failures
    assert [server.asked[text] for text in TEXTS[:5]] == [1] * 5


def test_an_address_where_nobody_listens(server: ChatServer, storage: Storage) -> None:
    nowhere = EndpointConfig(url="http://127.0.0.1:9/v1", retries=0)
    asking = {0: partial(Asking, settings=nowhere, answers=Answers(storage, "op"))}
    with pytest.raises(SandboxError, match="gave no answer in 1 tries"):
        FusedOperators([QUALITY], asking=asking)(TEXTS[:2], None, [0])


@pytest.mark.parametrize(
    ("garbage", "tries", "reason"),  # as often as Data-Juicer tries
    [
        (Reply(content="I like it."), 3, "the last: 'I like it.'"),
        (Reply(content="No, I will not."), 3, "the last: 'No, I will not.'"),
        (Reply(content='{"dimension_scores": {"accuracy": 3}}'), 3, "could be read, the last"),
        (Reply(content='{"rationale": "no scores"}'), 1, "could be read, the last"),
        (Reply(content=""), 3, "the answer is empty"),
        (Reply(body=b"<html>"), 3, "did not answer in JSON: '<html>'"),
        (Reply(body=b"[]"), 3, "has no choices.0.message.content"),
        (Reply(400, {}, b"too long"), 1, "refuses it with 400: too long"),
    ],
    ids=["words", "no", "half", "none", "empty", "html", "list", "400"],
)
def test_what_cannot_be_read_costs_its_row_alone(
    server: ChatServer, storage: Storage, garbage: Reply, tries: int, reason: str
) -> None:
    server.trouble = lambda text, _before: garbage if text == TEXTS[2] else None
    computed = ask(server, storage, TEXTS[:5])
    assert np.isnan(values(computed)).tolist() == [False, False, True, False, False]
    (failure,) = computed.failures
    assert failure.row == 2
    assert reason in failure.reason
    assert server.asked[TEXTS[2]] == tries
    ask(server, storage, TEXTS[:5])
    assert server.asked[TEXTS[2]] == tries, "what was paid for in vain is not paid again"


def test_answers_that_are_all_unreadable_are_asked_for_again(
    server: ChatServer, storage: Storage
) -> None:
    """It was the server, or what it runs; what it cost counts all the same."""
    server.trouble = lambda _text, _before: Reply(content='{"another": "format"}')
    assert len(ask(server, storage, TEXTS[:5]).failures) == 5
    server.trouble = lambda _text, _before: None
    assert not ask(server, storage, TEXTS[:5]).failures
    again = Answers(storage, operator_id(QUALITY))
    assert again.tokens == 2 * 5 * TOKENS
    assert len(again) == 5
    assert not ask(server, storage, TEXTS[:5]).failures
    assert set(server.asked.values()) == {2}


def test_a_server_that_is_no_language_model_is_not_asked_for_ever(
    server: ChatServer, storage: Storage
) -> None:
    texts = [f"caption {row}" for row in range(90)]
    server.trouble = lambda _text, _before: Reply(body=b'{"status": "ok"}')
    for _ in range(2):
        server.asked.clear()
        with pytest.raises(
            BadInput, match=r"no answer could be read, one of them: the answer has no choices\.0"
        ):
            ask(server, storage, texts)
        assert 64 <= len(server.asked) <= 64 + 4
    server.trouble = lambda _text, _before: None
    assert not ask(server, storage, texts).failures


def test_a_key_that_is_cut_in_an_error_stays_a_secret(server: ChatServer, storage: Storage) -> None:
    said = "x" * 290 + KEY
    server.trouble = lambda _text, _before: Reply(403, {}, said.encode())
    with pytest.raises(BadInput, match="refuses with 403") as caught:
        ask(server, storage)
    assert KEY[:8] not in str(caught.value)


def test_a_second_answer_may_be_one_that_can_be_read(server: ChatServer, storage: Storage) -> None:
    server.trouble = lambda _text, before: None if before else Reply(content="hm")
    assert not ask(server, storage, TEXTS[:3]).failures
    assert Answers(storage, operator_id(QUALITY)).tokens == 3 * 2 * TOKENS


def test_a_budget_ends_the_run_and_a_larger_one_goes_on(
    server: ChatServer, storage: Storage
) -> None:
    budget = 7 * TOKENS
    with pytest.raises(SandboxError, match=r"budget_tokens: 700 of 700 tokens are spent, for 7"):
        ask(server, storage, concurrency=1, budget_tokens=budget)
    assert server.asked.total() == 7
    with pytest.raises(SandboxError, match="budget_tokens"):
        ask(server, storage, concurrency=1, budget_tokens=budget)
    assert server.asked.total() == 7, "the same command spends nothing"
    assert not ask(server, storage, budget_tokens=budget + 100 * TOKENS).failures
    assert set(server.asked.values()) == {1}


def test_a_budget_needs_a_server_that_says_what_it_costs(
    server: ChatServer, storage: Storage
) -> None:
    server.trouble = lambda _text, _before: Reply(usage=False)
    assert not ask(server, storage, TEXTS[:2]).failures
    with pytest.raises(BadInput, match=r"usage\.total_tokens"):
        ask(server, storage, budget_tokens=1000)


def test_a_key_that_is_refused_is_the_users_to_mend(server: ChatServer, storage: Storage) -> None:
    server.trouble = lambda _text, _before: Reply(401, {}, f"no such key {KEY}".encode())
    with pytest.raises(BadInput, match="refuses with 401: no such key") as caught:
        ask(server, storage)
    assert KEY not in str(caught.value)
    assert "key from OPENAI_API_KEY" in str(caught.value)


def test_a_killed_run_pays_for_nothing_twice(
    server: ChatServer, storage: Storage, tmp_path: Path
) -> None:
    server.trouble = lambda _text, _before: Reply(delay=0.2)
    script = (
        "import sys, json; sys.path[:0] = json.loads(sys.argv[1])\n"
        "from test_stats_endpoint import *\n"
        "server = ChatServer(); server.url = sys.argv[2]\n"
        "ask(server, Storage(sys.argv[3]), concurrency=2)\n"
    )
    arguments = [json.dumps(sys.path), server.url, storage.url]
    run = subprocess.Popen([sys.executable, "-c", script, *arguments])
    try:
        while server.asked.total() < 8 and run.poll() is None:
            time.sleep(0.02)
        assert run.poll() is None, "it was to be killed in the middle"
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    asked = server.asked.total()
    kept = len(Answers(storage, operator_id(QUALITY)))
    assert asked - 2 <= kept < len(TEXTS), "all but those under way"
    folder = f"answers/{operator_id(QUALITY)}"
    assert not storage.names(f"{folder}/open"), "what lay there singly is one file"
    assert len(Answers(storage, operator_id(QUALITY))) == kept
    computed = ask(server, storage)
    assert not computed.failures
    assert server.asked.total() == asked + len(TEXTS) - kept


def test_a_condition_is_answered_by_yes_or_no(server: ChatServer, storage: Storage) -> None:
    spec = OperatorSpec("llm_condition_filter", {"condition": "is odd"})
    said = {"one": "Yes.", "two": "no", "three": "who knows"}
    server.trouble = lambda prompt, _before: Reply(
        content=next(answer for text, answer in said.items() if text in prompt)
    )
    computed = ask(server, storage, list(said), spec)
    assert values(computed)[:2] == [1.0, 0.0]
    assert np.isnan(values(computed)[2])
    assert "who knows" in computed.failures[0].reason


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"api_endpoint": "http://elsewhere/v1/chat"}, "api_endpoint: a path"),
        ({"model_params": {"base_url": "http://elsewhere"}}, "model_params"),
        ({"input_keys": ["question"], "field_names": ["Q"]}, "input_keys"),
    ],
)
def test_what_an_operator_asks_for_beside_the_endpoint(
    server: ChatServer, storage: Storage, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        ask(server, storage, spec=OperatorSpec(QUALITY.name, params))
    assert not server.asked


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "127.0.0.1:8000"},
        {"url": "http://me:secret@127.0.0.1/v1"},
        {"url": "http://127.0.0.1/v1?key=secret"},
        {"url": "http://127.0.0.1/v1", "key_variable": "MY_NAME"},
        {"url": "http://127.0.0.1/v1", "concurrency": 0},
        {"url": "http://127.0.0.1/v1", "key": "sk-1"},
    ],
)
def test_what_a_configuration_may_not_say(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EndpointConfig(**settings)


def test_the_endpoint_and_its_key_are_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(BadInput, match=r"needs statistics\.endpoint"):
        check_needs([QUALITY])
    endpoint = EndpointConfig(url="http://127.0.0.1/v1/")
    with pytest.raises(BadInput, match="the environment variable OPENAI_API_KEY"):
        check_needs([QUALITY], endpoint=endpoint)
    check_needs([QUALITY], endpoint=EndpointConfig(url=endpoint.url, key_variable=None))
    monkeypatch.setenv("OPENAI_API_KEY", "two words")
    with pytest.raises(BadInput, match="holds no key here"):
        endpoint.key()
