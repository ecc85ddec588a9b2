"""`python -m cli`, in a clone `bin/holdfast`."""

from __future__ import annotations

import click

from cli import (
    access,
    agents,
    completion,
    dead_letters,
    doctor,
    documents,
    events,
    imports,
    reconcile,
    reports,
    send,
    subscriptions,
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success, 1 failure, 2 wrong usage or configuration, 3 service unavailable.",
)
def holdfast() -> None:
    """Inspect and operate Holdfast: events, dead letters, documents, agents, subscriptions, access."""


for command in (
    *(events.events, dead_letters.dead, documents.documents, agents.agents),
    *(subscriptions.subscriptions, access.access, imports.import_),
    *(reports.stats, reports.sources, reports.audit, reconcile.reconcile),
    *(send.send, doctor.doctor, completion.completion),
):
    holdfast.add_command(command)

if __name__ == "__main__":
    holdfast(prog_name="holdfast")
