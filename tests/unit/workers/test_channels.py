"""The pipes by which threads and processes of a worker wake each other."""

from __future__ import annotations

import os
import select
import threading
from collections import deque

import pytest

from workers.channels import Channels, Signal, Wake

CALLS = 5_000


def test_no_call_is_lost_however_the_threads_interleave() -> None:
    wake, calls = Wake(), deque[int]()

    def call() -> None:
        for n in range(CALLS):
            calls.append(n)
            wake()

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    seen = 0
    while seen < CALLS * len(threads):
        assert select.select([wake.fd], [], [], 20)[0], "a thread has called, and the poll was not woken"
        wake.clear()
        while calls:
            calls.popleft()
            seen += 1


def test_a_call_during_the_reading_does_not_silence_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    wake, read = Wake(), os.read

    def call_and_read(fd: int, size: int) -> bytes:
        wake()
        return read(fd, size)

    wake()
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", call_and_read)
        wake.clear()
    wake()
    assert select.select([wake.fd], [], [], 0)[0]


def test_a_process_without_room_leaves_an_offer_to_others() -> None:
    channels, wake = Channels(), Wake()
    channels.offer_jobs()
    assert channels.wait(wake, 0, has_room=False, stopping=False) == (False, False)
    assert channels.wait(wake, 0, has_room=True, stopping=False) == (True, False)
    assert channels.wait(wake, 0, has_room=True, stopping=False) == (False, False)


def test_any_number_of_offers_blocks_nobody() -> None:
    channels = Channels()
    for _ in range(100_000):
        channels.offer_jobs()


def test_a_signal_that_is_closed_again_closes_no_other_file() -> None:
    signal = Signal()
    signal.close()
    other = os.pipe()  # takes the number that has become free
    signal.close()
    os.write(other[1], b"x")


def test_a_process_waits_until_the_worker_is_ready() -> None:
    channels = Channels()
    waiting = threading.Thread(target=channels.wait_for_start)
    waiting.start()
    assert waiting.is_alive()
    channels.start_leasing()
    channels.start_leasing()
    waiting.join(20)
    assert not waiting.is_alive()


def test_all_processes_are_told_to_stop_and_the_main_process_sees_when_they_are_drained() -> None:
    channels, wake = Channels(), Wake()
    channels.stop_leasing()
    channels.stop_leasing()
    assert channels.wait(wake, 0, has_room=True, stopping=False) == (False, True)
    channels.wait_drained(20)  # no other process holds an end
