"""`holdfast doctor`: check the installation and say how to fix each problem."""

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
    """Check the installation. Checks settings, connections and durability, and says how to fix each problem.

    It reads the settings of the machine on which it runs, so run it where a worker runs. It changes nothing.
    """
    if errors := problems():
        findings = [{"ok": False, "check": "settings", "found": line, "fix": "see docs/settings.md"} for line in errors]
    else:
        findings = [{"ok": True, "check": "settings", "found": "all valid", "fix": ""}, *_run_checks()]
    if as_json:
        output.as_json({"findings": findings})
    else:
        for finding in findings:
            _print(finding)
    if failed := sum(not finding["ok"] for finding in findings):
        raise CommandError(f"{failed} of {len(findings)} checks failed")


def _run_checks() -> list[dict[str, object]]:
    from cli.doctor_checks import examine  # noqa: PLC0415  importing Celery reads the settings, which must be valid

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # findings only, no logs
    try:
        return [asdict(finding) for finding in examine(load())]
    except SettingsError as error:  # a file has changed since problems() read it
        raise CommandError(str(error)) from None


def _print(finding: dict[str, object]) -> None:
    click.echo(f"{'ok  ' if finding['ok'] else 'FAIL'}  {finding['check']}: {finding['found']}")
    if not finding["ok"]:
        click.echo(f"      fix: {finding['fix']}")
