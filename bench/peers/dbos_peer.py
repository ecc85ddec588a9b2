"""DBOS: FastAPI records a workflow, under the event's id, in Postgres; a worker process takes it from the queue.

python dbos_peer.py web|worker
"""

import json
import os
import sys
import threading

import redis
import stripe
import urllib3
import uvicorn
from dbos import DBOS, DBOSClient
from fastapi import FastAPI, Request, Response

SECRET = os.environ["STRIPE_WEBHOOK_SECRET"]
DATABASE = os.environ["DBOS_DATABASE_URL"]
QUEUE = "events"
VERSION = "bench"
PEER = os.environ.get("BENCH_PEER")
AT_ONCE = int(os.environ.get("BENCH_AT_ONCE", "16"))
store = redis.Redis.from_url(os.environ["REDIS_URL"])
peers = urllib3.PoolManager(maxsize=AT_ONCE)


@DBOS.step()
def count_one():
    store.incr("effects")


@DBOS.step()
def call(subscription: str):
    peers.request("GET", f"{PEER}/v1/subscriptions/{subscription}")


@DBOS.workflow()
def handle(payload: str):
    if PEER:
        call(json.loads(payload)["data"]["object"]["id"])
    else:
        count_one()


def worker() -> None:
    """Creates the tables at its first start."""
    config = {"name": "bench", "system_database_url": DATABASE, "application_version": VERSION, "log_level": "WARNING"}
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=AT_ONCE, polling_interval_sec=0.1)
    print("ready", flush=True)
    threading.Event().wait()


def web() -> None:
    client = DBOSClient(system_database_url=DATABASE, application_name="bench")
    app = FastAPI()
    options = {"queue_name": QUEUE, "workflow_name": "handle", "app_version": VERSION}

    @app.post("/stripe-webhook")
    async def webhook(request: Request):
        payload = await request.body()
        try:
            event = stripe.Webhook.construct_event(payload, request.headers.get("Stripe-Signature", ""), SECRET)
        except (ValueError, stripe.SignatureVerificationError):
            return Response('{"error": "bad signature"}', 400)
        await client.enqueue_async({**options, "workflow_id": event["id"]}, payload.decode())
        return {"success": True}

    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")


if __name__ == "__main__":
    {"web": web, "worker": worker}[sys.argv[1]]()
