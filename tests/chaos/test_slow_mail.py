"""A mail server that confirms later than jobs may run and leases last gets one mail."""

from __future__ import annotations

import asyncio

import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

from inbox.job import NewJob
from tasks.models import Notification
from tests.chaos.conftest import World
from tests.chaos.test_call_crash import NOW, SLOW_START, record
from tests.support.peers import Mailbox

CONFIRM_SECONDS = 16  # longer than the lease and the time limit of other jobs, by SLOW_START


class SlowMailbox(Mailbox):
    """Has a mail long before it confirms it."""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        answer = await super().handle_DATA(server, session, envelope)
        await asyncio.sleep(CONFIRM_SECONDS)
        return answer


@pytest.mark.slow
@pytest.mark.parametrize("world", ["redis-sqlite"], indirect=True)
def test_a_mail_server_that_confirms_after_the_time_limit_of_other_jobs_gets_one_mail(world: World) -> None:
    key = "notify:no_address:n1"
    job = NewJob("stripe:evt_1:notify", "tasks.notifications.send", "notifications", {"notification": key})
    told = {"message": "receipt", "customer": "cus_1", "event": "evt_1"}
    row = Notification(id=key, kind="no_address", audience="admin", params=told, state="owed", created_at=NOW)
    with SlowMailbox() as mailbox:
        record(world, job, row)
        url = f"{mailbox.url}&to=admin@example.com"
        world.stack.worker(queues="notifications", ADMIN_NOTIFY_URLS=url, **SLOW_START)
        world.settle()
    assert (len(mailbox.mails), world.outcomes(job.id)) == (1, ["succeeded"])
