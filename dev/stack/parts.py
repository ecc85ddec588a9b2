"""The parts of the local stack: for each its command, its start order, and how long it may take to stop."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Template

from dev.stack.environment import Ports
from dev.stack.servers import valkey_command

# Two workers for six queues, because a worker takes 110 MB, and each of its processes only 12 MB more. A mail server,
# an agent or a document service that is slow delays no payment and no order.
WORKERS = {
    "payments": ("payments", "fulfilment"),
    "outgoing": ("documents", "downloads", "notifications", "handoffs"),
}
WORKER_PROCESSES = 4


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the stack. Low `order` starts first and stops last; parts of one order stop together."""

    name: str
    command: Sequence[str]
    order: int
    stop_seconds: int = 10


def parts(folder: Path, ports: Ports, environ: Mapping[str, str]) -> list[Part]:
    """Every part that this environment needs: a real service that the user has set replaces its simulator."""
    url = f"http://127.0.0.1:{ports.receiver}/stripe-webhook"
    mail = ("aiosmtpd", "-n", "-l", f"127.0.0.1:{ports.mail}", "-c", "aiosmtpd.handlers.Mailbox", str(folder / "mail"))
    chosen = [Part("mail", _python(*mail), 2)]
    if environ["REDIS_URL"] == ports.redis_url:
        chosen.append(Part("valkey", valkey_command(folder / "valkey", ports.valkey), 1))
    if environ["DOC_SERVICE_URL"] == ports.documents_url:
        chosen.append(Part("documents", _python("dev.simulators.document_service", "--port", str(ports.documents)), 2))
    if environ["STRIPE_API_BASE"] == ports.stripe_url:
        store = ("--folder", str(folder / "stripe"), "--webhook-url", url)
        chosen.append(Part("stripe", _python("dev.simulators.localstripe", "--port", str(ports.stripe), *store), 2))
    return [*chosen, receiver(), *_workers(), _flower(folder, ports)]


def _python(*words: str) -> list[str]:
    return [sys.executable, "-m", *words]


def receiver(module: str = "web") -> Part:
    return Part("receiver", _python(module), 3)


def _workers() -> list[Part]:
    return [worker(name, *queues, processes=WORKER_PROCESSES) for name, queues in WORKERS.items()]


def worker(name: str, *queues: str, processes: int = 2, app: str = "workers.app", options: Sequence[str] = ()) -> Part:
    which = ("-Q", ",".join(queues), "-n", f"{name}@%h", "-c", str(processes))
    command = _python("celery", "-A", app, "worker", *which, "--loglevel=INFO", *options)
    return Part(f"worker-{name}", command, 4, stop_seconds=45)


def _flower(folder: Path, ports: Ports) -> Part:
    """Its password comes by FLOWER_BASIC_AUTH; its history is saved often, because a kill loses the rest."""
    history = ("--persistent=True", f"--db={folder / 'flower'}", "--state_save_interval=5000")
    listen = ("--conf=workers/flowerconfig.py", f"--port={ports.flower}", "--address=127.0.0.1")
    return Part("flower", _python("celery", "-A", "workers.flower_app", "flower", *listen, *history), 5)


def supervisor_config(folder: Path, repository: Path, chosen: Sequence[Part]) -> str:
    """supervisord.conf: restart every part that dies; one log for each part, in logs/."""
    template = Template((Path(__file__).parent / "supervisord.conf.jinja").read_text(), trim_blocks=True)
    values = {"folder": folder, "repository": repository, "parts": chosen, "join": shlex.join}
    text: str = template.render(values, root=os.geteuid() == 0)
    return text.replace("%", "%%")  # supervisord expands %(…)s
