// Fastify and BullMQ: the event's id is the job's id, so that BullMQ's own script refuses a second one.
import Fastify from "fastify";
import { Queue } from "bullmq";
import Redis from "ioredis";
import Stripe from "stripe";

const secret = process.env.STRIPE_WEBHOOK_SECRET;
const stripe = new Stripe("sk_test_unused");
const queue = new Queue("events", { connection: new Redis(process.env.REDIS_URL, { maxRetriesPerRequest: null }) });
const app = Fastify();

app.addContentTypeParser("application/json", { parseAs: "buffer" }, (_request, body, done) => done(null, body));

app.post("/stripe-webhook", async (request, reply) => {
  let event;
  try {
    event = stripe.webhooks.constructEvent(request.body, request.headers["stripe-signature"], secret);
  } catch {
    return reply.code(400).send({ error: "bad signature" });
  }
  await queue.add(event.type, event, { jobId: event.id });
  return { success: true };
});

await queue.waitUntilReady();
await app.listen({ port: Number(process.env.PORT), host: "127.0.0.1" });
