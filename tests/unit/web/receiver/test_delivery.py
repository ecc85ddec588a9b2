"""What a delivery takes while it arrives."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

from settings import load
from tests.support.signed_deliveries import STRIPE_SECRET
from web.application import create_asgi_app
from web.receiver.delivery import Delivery
from web.responses import Response


class Connection:
    def reply(self, delivery: Delivery, response: Response) -> None:
        raise AssertionError("it is not complete")


def test_a_body_in_tiny_pieces_takes_no_more_memory_than_it_is_counted_with(tmp_path: Path) -> None:
    environ = {"STRIPE_WEBHOOK_SECRET": STRIPE_SECRET, "DATABASE_URL": f"sqlite:///{tmp_path}/x.db"}
    receiver = create_asgi_app(load(environ)).receiver
    signature = f"t={int(time.time())},v1={'0' * 64}".encode()
    headers = [(b"stripe-signature", signature)]
    source = receiver.sources_by_path[b"/stripe-webhook"]
    delivery = Delivery(receiver, source, Connection(), headers, b"", keep_alive=True)
    tracemalloc.start()
    for _ in range(100_000):
        delivery.add_chunk(bytes(2))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert delivery.size == 200_000
    assert used < 2 * delivery.size
