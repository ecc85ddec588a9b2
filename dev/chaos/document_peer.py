"""The simulated document service, made breakable; it tells what it was asked, and which callbacks were taken when."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter

from dev.simulators import document_service
from dev.simulators.document_behaviour import Task
from dev.simulators.document_service import Server, Service
from dev.simulators.faults import serve_or_fail

API_KEY = "chaos-document-key"
SECRET = "whsec_Y2hhb3Mtb2YtdGhlLWRvY3VtZW50LXBlZXI="  # signs between processes of this run only
PAUSE_SECONDS = 0.2
PIECES, PIECE_SECONDS = 10, 0.15  # so slow is a download, or nobody would ever die in the middle of one


class DocumentPeer(Server):
    """`way` says how it fails meanwhile, empty for not at all. Its own calls to us go on."""

    service: _Service

    def __init__(self) -> None:
        super().__init__(0, API_KEY, SECRET)
        self.RequestHandlerClass = _Handler
        self.service = _Service(self.address, API_KEY, SECRET, PAUSE_SECONDS)
        self.way = ""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def acknowledged(self) -> dict[str, float]:
        """webhook-id -> when we first took this callback, in milliseconds since 1970."""
        return dict(self.service.acknowledged)

    @property
    def busy(self) -> int:
        """How many documents it still has to call back for."""
        return self.service.busy

    def tasks(self) -> Counter[str]:
        """How many distinct Idempotency-Keys each document was sent with."""
        return Counter(task.document_id for task in self.service.tasks())


class _Service(Service):
    longest_wait_seconds = 2.0
    callback_tries = 100

    def __init__(self, address: str, api_key: str, webhook_secret: str, pause_seconds: float) -> None:
        super().__init__(address, api_key, webhook_secret, pause_seconds)
        self.acknowledged: dict[str, float] = {}

    def heard(self, task: Task, message_id: str, status: str, answer: int) -> None:
        if 200 <= answer < 300:
            self.acknowledged.setdefault(message_id, time.time() * 1000)


class _Handler(document_service.Handler):
    server: DocumentPeer

    def do_GET(self) -> None:
        serve_or_fail(self, self.server.way, self._serve_slowly)

    def do_POST(self) -> None:
        serve_or_fail(self, self.server.way, super().do_POST)

    def _serve_slowly(self) -> None:
        wire, answer = self.wfile, io.BytesIO()
        self.wfile = answer
        super().do_GET()
        self.wfile = wire
        whole, size = answer.getvalue(), len(answer.getvalue()) // PIECES + 1
        for begin in range(0, len(whole), size):
            wire.write(whole[begin : begin + size])
            time.sleep(PIECE_SECONDS)

    def log_message(self, *_: object) -> None:
        """Quiet."""
