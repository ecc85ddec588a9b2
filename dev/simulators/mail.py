"""A simulated mail service for Apprise's json:// address: it keeps each mail's kind (its title), address and time."""

from __future__ import annotations

import json
import time
from urllib.parse import unquote

from dev.harness.mails import Mail
from dev.simulators.http import Request, Response, Simulator


class MailService(Simulator):
    """Accepts every POST."""

    def __init__(self) -> None:
        super().__init__(self._accept)
        self.mails: list[Mail] = []
        self.notify_url = f"json://{self.host}/{{email}}"  # for CUSTOMER_NOTIFY_URLS

    def _accept(self, request: Request) -> Response:
        title, address = json.loads(request.body)["title"], unquote(request.path.strip("/"))
        self.mails.append(Mail(title, address, time.time() * 1000, answered=not request.response_lost))
        return Response()
