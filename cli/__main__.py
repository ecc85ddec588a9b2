"""`python -m cli`, in a clone `bin/holdfast`: see and steer Holdfast from a terminal or a script."""

from __future__ import annotations

import click

from cli import agents, completion, dead, doctor, documents, events, reports, send, subscriptions


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 refused or in trouble, 2 typed or set wrongly, 3 nobody answers.",
)
def holdfast() -> None:
    """See and steer Holdfast: events, dead letters, documents, agents, subscriptions."""


for command in (
    *(events.events, dead.dead, documents.documents, agents.agents),
    subscriptions.subscriptions,
    *(reports.stats, reports.sources, reports.audit, reports.reconcile),
    *(send.send, doctor.doctor, completion.completion),
):
    holdfast.add_command(command)

if __name__ == "__main__":
    holdfast(prog_name="holdfast")
