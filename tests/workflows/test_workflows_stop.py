from __future__ import annotations

import os
import signal

import pytest

from djsandbox_ray.workflows.run import stoppable


def _stopped_by(number: signal.Signals) -> None:
    with stoppable():
        os.kill(os.getpid(), number)
        pytest.fail("nothing was raised")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_signals_end_the_block_and_are_given_back(number: signal.Signals) -> None:
    before = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)]
    with pytest.raises(KeyboardInterrupt):
        _stopped_by(number)
    assert [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)] == before


def test_while_the_block_ends_sigterm_is_ignored_and_ctrl_c_is_not() -> None:
    ended = []

    def clean_up() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        ended.append("cleaned up")
        os.kill(os.getpid(), signal.SIGINT)
        ended.append("not reached")

    def run() -> None:
        with stoppable():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                clean_up()

    with pytest.raises(KeyboardInterrupt):
        run()
    assert ended == ["cleaned up"]
