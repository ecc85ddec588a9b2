"""What most people write: Flask, stripe's construct_event, SET NX against duplicates, and Celery's delay()."""

import json
import os

import redis
import stripe
from celery import Celery
from flask import Flask, request

SECRET = os.environ["STRIPE_WEBHOOK_SECRET"]
SEEN_SECONDS = 35 * 86400

celery = Celery("naive", broker=os.environ["REDIS_URL"])
celery.conf.task_ignore_result = True
store = redis.Redis.from_url(os.environ["REDIS_URL"])
app = Flask(__name__)


@celery.task
def handle(event):
    store.incr("effects")


@app.post("/stripe-webhook")
def webhook():
    payload = request.get_data()
    try:
        event = stripe.Webhook.construct_event(payload, request.headers.get("Stripe-Signature", ""), SECRET)
    except (ValueError, stripe.SignatureVerificationError):
        return {"error": "bad signature"}, 400
    if store.set(f"seen:{event['id']}", 1, nx=True, ex=SEEN_SECONDS):
        handle.delay(json.loads(payload))
    return {"success": True}
