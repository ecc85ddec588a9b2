"""The chaos run's rule for mails that came again: each needs an excuse, and an excuse does not last for ever."""

from __future__ import annotations

import pytest

from dev.harness.mails import ATTEMPT_MS, EACH, Counted, Mail, count, overruns
from dev.harness.timing import Outage

KILL = Outage("kill a worker", "worker-notifications", 100_000, 100_000)
AFTER = 120_000


def mail(at_ms: float, number: int = 1, *, heard: bool = True) -> Mail:
    return Mail("receipt", f"{number}@example.test", at_ms, heard)


def counted(times: int, excused: int) -> Counted:
    return Counted({"receipt mails": {"1@example.test": times}}, excused)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("mails", "times", "excused"),
    [
        ([mail(1)], 1, 0),
        ([mail(99_000), mail(AFTER)], 1, 1),  # the worker was killed before it had written down its yes
        ([mail(99_000), mail(101_000), mail(AFTER)], 1, 2),
        ([mail(100_000 - ATTEMPT_MS - 1), mail(AFTER)], 2, 0),  # that attempt was over
        ([mail(100_000 + ATTEMPT_MS + 1), mail(AFTER)], 2, 0),
        ([mail(1), mail(2)], 2, 0),
        ([mail(1, heard=False), mail(2)], 1, 1),  # the mail service broke off its own yes
        ([mail(1), mail(2, heard=False)], 2, 0),  # not the yes to the first
    ],
)
def test_a_mail_that_came_again_has_an_excuse_or_counts(mails: list[Mail], times: int, excused: int) -> None:
    assert count(mails, [KILL]) == counted(times, excused)


@pytest.mark.parametrize("kind", ["kill a receiver", "break Stripe", "break the document service"])
def test_what_cannot_part_a_worker_from_its_commit_is_no_excuse(kind: str) -> None:
    assert count([mail(99_000), mail(AFTER)], [Outage(kind, "", 100_000, 100_000)]) == counted(2, 0)


def test_a_disturbance_excuses_no_more_mails_than_were_under_way() -> None:
    mails = [mail(at_ms, number) for number in range(EACH + 3) for at_ms in (100_000 + number, AFTER + number)]
    found = count(mails, [KILL])
    assert found.excused == EACH
    assert sum(times == 2 for times in found.found["receipt mails"].values()) == 3


def test_each_disturbance_has_its_own_excuses_and_the_one_that_is_over_first_gives_them_first() -> None:
    second = Outage("freeze the database", "postgres", 103_000, 106_000)
    early = [mail(at_ms, number) for number in range(EACH) for at_ms in (101_000, AFTER)]  # of both
    late = [mail(at_ms, EACH + number) for number in range(EACH) for at_ms in (110_000, AFTER)]  # of the second only
    assert count([*early, *late], [second, KILL]).excused == 2 * EACH


def test_an_attempt_that_ran_over_its_time_limit_excuses_one_mail() -> None:
    said = "Soft time limit (3.75s) exceeded for tasks.notifications.send[an-id]"
    log = f'{{"event": "{said}", "timestamp": "1970-01-01T00:01:40Z"}}\n{{"event": "another"}}\n'
    (limit,) = overruns(log)
    assert (limit.begin_ms, limit.end_ms) == (100_000, 100_000)
    assert count([mail(99_000), mail(99_000, 2), mail(AFTER), mail(AFTER, 2)], [limit]).excused == 1
