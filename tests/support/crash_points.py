"""The methods around which tests kill a process, by owner and name, with the crash points before and after their work.

An empty text is no crash point. tests/unit/test_crash_points_exist.py checks that every method exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inbox.batch import BatchStore
from inbox.recorder import Recorder
from inbox.store import Store
from tasks.agents import handoff
from tasks.clients import document_service, stripe
from tasks.documents import store_folder, store_s3, submissions, transfer
from tasks.documents.partial_file import PartialFile
from tasks.notifications import notify
from workers.flower_events import FlowerEvents
from workers.run import Runner

CrashPoint = tuple[Any, str, str, str]

WORKER: Sequence[CrashPoint] = (
    (Store, "lease", "after the pop, before the lease", "after the lease"),
    (BatchStore, "exchange", "after the pop, before the lease", "after the lease"),
    (Runner, "_effect", "before the effect", "after the SQL commit, before finish"),
    (Store, "fail", "before the failure is recorded", "after the failure is recorded"),
    (handoff, "post", "before the agent is called", "after the agent's answer, before the commit"),
    (Store, "finish", "before finish", "after finish"),
    (Store, "finish_and_lease", "before finish", "after finish"),
    (Store, "save_alerts", "before the alerts are saved", "after the alerts are saved"),
    (Store, "release", "before release", "after release"),
    (BatchStore, "release_all", "before release", "after release"),
    (Store, "renew", "before renew", "after renew"),
    (FlowerEvents, "record", "after the next lease, before its handler", ""),
    (stripe, "pay_invoice", "", "after the charge, before the commit"),
    (notify, "send_message", "", "after the mail, before the commit"),
)
DOCUMENTS: Sequence[CrashPoint] = (
    (document_service, "request_processing", "before the submission", "after the submission, before the commit"),
    (submissions, "poll_status", "before the poll", "after the poll, before the commit"),
    (PartialFile, "start_over", "before the headers are saved", "after the headers are saved"),
    (transfer, "_verify", "after the download, before the verification", "after the verification, before the save"),
    (store_folder, "sync", "before the sync", "after the sync, before the rename"),
    (store_s3.S3Store, "_upload_part", "before the upload", "in the middle of the upload"),
    (store_folder.FolderStore, "save", "before the save", "after the save, before the part is deleted"),
    (store_s3.S3Store, "save", "before the save", "after the save, before the part is deleted"),
)
RECEIVER: Sequence[CrashPoint] = (
    (Recorder, "record_all", "before the record", "after the record, before the doorbell and the 200"),
    (Store, "replay", "before the replay", "after the replay, before the doorbell"),
)
