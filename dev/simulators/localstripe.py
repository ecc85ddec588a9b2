"""`localstripe` for one stack: a simulated Stripe with state and signed webhooks, on loopback, without an account.

    python -m dev.simulators.localstripe --port 8420 --folder var/run/stripe --webhook-url http://127.0.0.1:8000/stripe-webhook

Its own command listens on every interface and shares one file in the temporary folder with every other localstripe of
the machine; here it stays on loopback and in `--folder`. STRIPE_WEBHOOK_SECRET in the environment signs the webhooks.
"""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path
from typing import Any

from aiohttp import web
from localstripe import resources, server


def keep_state_in(path: Path) -> None:
    """Load the state of the last run and save it there from now on, whole or not at all."""

    def dump(store: Any) -> None:
        path.with_suffix(".new").write_bytes(pickle.dumps(dict(store)))
        path.with_suffix(".new").replace(path)

    if path.exists():
        dict.update(resources.store, pickle.loads(path.read_bytes()))
    resources.Store.dump_to_disk = dump


def list_events_as_stripe_does() -> None:
    """Newest first, by several types. `delivery_success` is ignored, because localstripe does not record deliveries."""
    in_order = resources.Event._api_list_all

    def newest_first(_: Any, /, url: str, types: Any = None, delivery_success: Any = None, **asked: Any) -> Any:
        page = in_order(url, **asked)
        page._list = [event for event in reversed(page._list) if not types or event.type in types]
        return page

    resources.Event._api_list_all = classmethod(newest_first)


def plan_no_attempts() -> None:
    """It never collects an invoice again by itself, so no invoice has a next attempt."""
    resources.Invoice.next_payment_attempt = property(lambda invoice: None)


@web.middleware
async def unknown_as_stripe_says_it(request: web.Request, handler: Any) -> Any:
    """An endpoint that localstripe lacks answers as Stripe does for an unknown object."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        error = {"type": "invalid_request_error", "code": "resource_missing", "message": f"No such {request.path}"}
        return web.json_response({"error": error}, status=404)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.simulators.localstripe", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--webhook-url", required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    keep_state_in(arguments.folder / "localstripe.pickle")
    list_events_as_stripe_does()
    plan_no_attempts()
    server.app.middlewares.append(unknown_as_stripe_says_it)
    secret = os.environ["STRIPE_WEBHOOK_SECRET"].split(",")[0]
    server.register_webhook("holdfast", arguments.webhook_url, secret, None)
    web.run_app(server.app, host="127.0.0.1", port=arguments.port, print=None)


if __name__ == "__main__":
    main()
