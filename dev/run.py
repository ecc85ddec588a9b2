"""`make run`: the whole stack in the foreground. Ctrl-C stops it; the data stays in var/run for the next time."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

from dev.stack.environment import StackError, fixed_ports, is_set, write_settings
from dev.stack.local import REPOSITORY, Stack, lock_folder
from dev.stack.signals import end_by_exception

FOLDER = REPOSITORY / "var" / "run"


def main() -> int:
    """The exit status: 0 after Ctrl-C, 1 when the stack cannot start or breaks down."""
    end_by_exception()
    try:
        with lock_folder(FOLDER), Stack(FOLDER, fixed_ports(os.environ), os.environ, report=_print) as stack:
            _run(stack)
    except StackError as error:
        print(f"holdfast: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        _print("stopped; the next `make run` uses the same data")
    return 0


def _run(stack: Stack) -> None:
    settings = stack.folder / "settings.sh"
    try:
        _print("starting …")
        write_settings(settings, stack.environ)
        stack.start()
        stack.wait_ready()
        _print(_addresses(stack))
        while True:
            time.sleep(0.5)
            stack.check_alive()
    except KeyboardInterrupt:
        _print("stopping; running jobs may finish, which can take ten seconds …")
        raise
    finally:
        settings.unlink(missing_ok=True)


def _print(line: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        print(f"holdfast: {line}", flush=True)


def _addresses(stack: Stack) -> str:
    folder, ports = stack.folder.relative_to(REPOSITORY), stack.ports
    key, sign_in = f"$(cat {folder}/api-key)", f"the key in {folder}/api-key"
    mails = f"{folder}/mail/new"
    if is_set(os.environ, "API_KEYS"):
        key, sign_in = "…", "one of your API_KEYS"
    if is_set(os.environ, "CUSTOMER_NOTIFY_URLS"):
        mails = "where CUSTOMER_NOTIFY_URLS says"
    rows = {
        "receiver": f"{ports.receiver_url}/stripe-webhook and /doc-status-webhook",
        "command": "bin/holdfast --help",
        "API": f"{ports.receiver_url}/api/v1/stats with `Authorization: Bearer {key}`",
        "console": f"{ports.receiver_url}/console/ with {sign_in}",
        "Flower": stack.flower_address,
        "documents": stack.environ["DOCUMENT_STORE"],
        "mails": mails,
        "logs": f"{folder}/logs",
        "secrets": f"{folder}/secrets.json",
    }
    lines = "\n".join(f"  {what:<10} {where}" for what, where in rows.items())
    return f"ready\n\n{lines}\n\nCtrl-C stops it.\n"


if __name__ == "__main__":
    sys.exit(main())
