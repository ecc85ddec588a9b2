"""The chaos run's rule for repeated mails: each needs an excuse, and each excuse covers few mails and a short time."""

from __future__ import annotations

import pytest

from dev.harness.mails import ATTEMPT_MS, MAX_EXCUSED, Counted, Mail, count, overruns
from dev.harness.timing import Outage

KILL = Outage("kill a worker", "worker-notifications", 100_000, 100_000)
AFTER = 120_000


def mail(at_ms: float, number: int = 1, *, answered: bool = True) -> Mail:
    return Mail("receipt", f"{number}@example.test", at_ms, answered)


def counted(times: int, excused: int) -> Counted:
    return Counted({"receipt mails": {"1@example.test": times}}, excused)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("mails", "times", "excused"),
    [
        ([mail(1)], 1, 0),
        ([mail(99_000), mail(AFTER)], 1, 1),  # the worker was killed before it committed the acceptance
        ([mail(99_000), mail(101_000), mail(AFTER)], 1, 2),
        ([mail(100_000 - ATTEMPT_MS - 1), mail(AFTER)], 2, 0),  # that attempt was over
        ([mail(100_000 + ATTEMPT_MS + 1), mail(AFTER)], 2, 0),
        ([mail(1), mail(2)], 2, 0),
        ([mail(1, answered=False), mail(2)], 1, 1),  # the mail service broke off its answer
        ([mail(1), mail(2, answered=False)], 2, 0),  # not the answer to the first
    ],
)
def test_a_repeated_mail_has_an_excuse_or_counts_as_doubled(mails: list[Mail], times: int, excused: int) -> None:
    assert count(mails, [KILL]) == counted(times, excused)


@pytest.mark.parametrize("kind", ["kill a receiver", "break Stripe", "break the document service"])
def test_an_outage_that_cannot_prevent_a_commit_is_no_excuse(kind: str) -> None:
    assert count([mail(99_000), mail(AFTER)], [Outage(kind, "", 100_000, 100_000)]) == counted(2, 0)


def test_an_outage_excuses_no_more_mails_than_were_being_sent() -> None:
    mails = [mail(at_ms, number) for number in range(MAX_EXCUSED + 3) for at_ms in (100_000 + number, AFTER + number)]
    found = count(mails, [KILL])
    assert found.excused == MAX_EXCUSED
    assert sum(times == 2 for times in found.found["receipt mails"].values()) == 3


def test_each_outage_has_its_own_excuses_and_the_one_that_ends_first_is_used_first() -> None:
    second = Outage("freeze the database", "postgres", 103_000, 106_000)
    early = [mail(at_ms, number) for number in range(MAX_EXCUSED) for at_ms in (101_000, AFTER)]  # of both
    late = [
        mail(at_ms, MAX_EXCUSED + number) for number in range(MAX_EXCUSED) for at_ms in (110_000, AFTER)
    ]  # of the second only
    assert count([*early, *late], [second, KILL]).excused == 2 * MAX_EXCUSED


def test_an_attempt_that_ran_over_its_time_limit_excuses_one_mail() -> None:
    message = "Soft time limit (3.75s) exceeded for tasks.notifications.send[an-id]"
    log = f'{{"event": "{message}", "timestamp": "1970-01-01T00:01:40Z"}}\n{{"event": "another"}}\n'
    (limit,) = overruns(log)
    assert (limit.begin_ms, limit.end_ms) == (100_000, 100_000)
    assert count([mail(99_000), mail(99_000, 2), mail(AFTER), mail(AFTER, 2)], [limit]).excused == 1
