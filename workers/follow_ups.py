"""Follow-ups of a job: as jobs of the record, and as text in the effect row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from inbox.job import Lease, NewJob, job_id
from tasks.handler import FollowUp
from tasks.routes import TASKS


def new_job(lease: Lease, follow_up: FollowUp) -> NewJob:
    return NewJob(
        id=job_id(lease.source, lease.event_id, follow_up.effect),
        task=follow_up.task,
        queue=TASKS[follow_up.task].queue,
        args=follow_up.args,
        delay_seconds=follow_up.delay_seconds,
        ordering_key=follow_up.ordering_key,
    )


def encode(follow_ups: Sequence[FollowUp]) -> str:
    return json.dumps([asdict(follow_up) for follow_up in follow_ups])


def decode(raw: str) -> list[FollowUp]:
    return [FollowUp(**fields) for fields in json.loads(raw)]
