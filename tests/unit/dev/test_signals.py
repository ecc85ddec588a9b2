"""A shutdown that is not interrupted, and the signals after it."""

from __future__ import annotations

import os
import signal

import pytest

from dev.stack.signals import ENDING, undisturbed


def test_a_shutdown_is_not_interrupted_and_signals_end_the_process_again_after_it() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with undisturbed():
        os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in ENDING] == before


def test_the_signals_work_again_after_a_shutdown_that_failed() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(OSError, match="no process"), undisturbed():
        raise OSError("no process")
    assert signal.getsignal(signal.SIGINT) == before
