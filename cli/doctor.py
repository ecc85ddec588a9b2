"""`holdfast doctor`: is everything set right, reachable and kept, and if not, how is it mended?"""

from __future__ import annotations

import logging
from dataclasses import asdict

import click
import structlog

from cli import output
from cli.errors import CommandError
from cli.options import as_json
from settings import SettingsError, load, problems


@click.command()
@as_json
def doctor(*, as_json: bool) -> None:
    """Check every setting, connection and promise, and say how to mend what is wrong.

    It reads the settings of the machine it runs on: run it where a worker runs. It changes nothing.
    """
    wrong = problems()
    found = [{"ok": False, "what": "settings", "found": line, "mend": "docs/settings.md"} for line in wrong]
    if not wrong:
        found = [{"ok": True, "what": "settings", "found": "each is understood", "mend": ""}, *_examined()]
    if as_json:
        output.as_json({"findings": found})
    else:
        for finding in found:
            _tell(finding)
    if bad := sum(not finding["ok"] for finding in found):
        raise CommandError(f"{bad} of {len(found)} to mend")


def _examined() -> list[dict[str, object]]:
    from cli.checks import examine  # noqa: PLC0415  Celery reads the settings as it is imported, which must be right

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # the findings tell it
    try:
        return [asdict(finding) for finding in examine(load())]
    except SettingsError as error:  # a file that has changed just now
        raise CommandError(str(error)) from None


def _tell(finding: dict[str, object]) -> None:
    click.echo(f"{'ok   ' if finding['ok'] else 'WRONG'}  {finding['what']}: {finding['found']}")
    if not finding["ok"]:
        click.echo(f"       mend: {finding['mend']}")
