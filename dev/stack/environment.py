"""Settings of the local stack: its ports, its secrets, and the environment of its parts."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shlex
import socket
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from dev.stack.servers import free_ports
from settings import Settings


class StackError(Exception):
    """The stack cannot start; str() is one line for the user."""


# The environment variable that moves each part's port, and the port.
FIXED_PORTS = {
    "PORT": 8000,
    "FLOWER_PORT": 5555,
    "VALKEY_PORT": 6390,
    "DOCUMENTS_PORT": 8010,
    "STRIPE_PORT": 8420,
    "MAIL_PORT": 8025,
}


class Ports:
    """Where the parts listen, all on loopback; in the order of FIXED_PORTS."""

    def __init__(self, *ports: int) -> None:
        self.receiver, self.flower, self.valkey, self.documents, self.stripe, self.mail = ports
        self.redis_url = f"redis://127.0.0.1:{self.valkey}/0"
        urls = [f"http://127.0.0.1:{port}" for port in (self.receiver, self.flower, self.documents, self.stripe)]
        self.receiver_url, self.flower_url, self.documents_url, self.stripe_url = urls


def fixed_ports(environ: Mapping[str, str]) -> Ports:
    """The same ports at every `make run`. Raises StackError for an invalid port or one that is in use."""
    return Ports(*(_port(name, environ.get(name) or str(default)) for name, default in FIXED_PORTS.items()))


def any_ports() -> Ports:
    return Ports(*free_ports(len(FIXED_PORTS)))


def _port(name: str, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise StackError(f"{name} is {text!r}; it must be a port from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind(("127.0.0.1", int(text)))
        except OSError:
            raise StackError(f"port {text} is taken; stop what listens there, or choose another: {name}=…") from None
    return int(text)


def local_secrets(folder: Path) -> dict[str, str]:
    """The secrets of this data folder: created once, and kept in secrets.json, which only its owner can read."""
    path = folder / "secrets.json"
    if not path.exists():
        made = {
            "STRIPE_WEBHOOK_SECRET": _webhook_secret(),
            "STRIPE_API_KEY": f"sk_test_{secrets.token_hex(16)}",
            "DOC_WEBHOOK_SECRET": _webhook_secret(),
            "DOC_SERVICE_API_KEY": secrets.token_urlsafe(24),
            "HANDOFF_SECRET": _webhook_secret(),
            "API_KEYS": secrets.token_urlsafe(24),
            "FLOWER_BASIC_AUTH": f"holdfast:{secrets.token_urlsafe(12)}",
        }
        _write_private(folder / "api-key", made["API_KEYS"])  # alone in its file, for `$(cat …)`
        _write_private(path, json.dumps(made, indent=1))
    return dict(json.loads(path.read_text()))


def _webhook_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def _write_private(path: Path, text: str) -> None:
    """Atomically, and never readable by others, not even for a moment."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def stack_environment(folder: Path, ports: Ports, own: Mapping[str, str]) -> dict[str, str]:
    """What the parts are started with. What the user set in `own` wins, also by NAME_FILE; with a real Stripe
    or document service, no key or address of a simulator is set."""
    defaults = _defaults(folder, ports)
    if is_set(own, "STRIPE_API_KEY") or is_set(own, "STRIPE_WEBHOOK_SECRET"):
        defaults |= {"STRIPE_API_KEY": "", "STRIPE_API_BASE": ""}
    if is_set(own, "DOC_SERVICE_URL"):
        defaults |= {"DOC_SERVICE_URL": "", "DOC_SERVICE_API_KEY": ""}
    kept = {name: value for name, value in defaults.items() if not is_set(own, name)}
    return {"REDIS_URL": "", "DOC_SERVICE_URL": "", "STRIPE_API_BASE": ""} | dict(own) | kept


def write_settings(path: Path, environ: Mapping[str, str]) -> None:
    """The settings of the stack as shell exports, for bin/holdfast."""
    names = {f.name.upper() for f in fields(Settings)}
    chosen = {name: value for name, value in environ.items() if value and name.removesuffix("_FILE") in names}
    _write_private(path, "".join(f"export {name}={shlex.quote(value)}\n" for name, value in chosen.items()))


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings, for a stack that must not depend on the user's own."""
    names = {f.name.upper() for f in fields(Settings)} | set(FIXED_PORTS) | {"FLOWER_BASIC_AUTH"}
    return {name: value for name, value in environ.items() if name.removesuffix("_FILE") not in names}


def is_set(environ: Mapping[str, str], name: str) -> bool:
    return bool(environ.get(name) or environ.get(f"{name}_FILE"))


def _defaults(folder: Path, ports: Ports) -> dict[str, str]:
    mail = f"mailto://127.0.0.1:{ports.mail}/?mode=insecure&from=holdfast@example.test&to="
    return {
        **local_secrets(folder),
        "PORT": str(ports.receiver),
        "PUBLIC_URL": ports.receiver_url,
        "REDIS_URL": ports.redis_url,
        "DATABASE_URL": f"sqlite:///{folder / 'holdfast.db'}",
        "DOCUMENT_STORE": str(folder / "documents"),
        "DOC_SERVICE_URL": ports.documents_url,
        "FLOWER_URL": ports.flower_url,
        "STRIPE_API_BASE": ports.stripe_url,
        "CUSTOMER_NOTIFY_URLS": f"{mail}{{email}}",
        "ADMIN_NOTIFY_URLS": f"{mail}admin@example.test",
        "CALL_OUT_ALLOWED_HOSTS": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }
