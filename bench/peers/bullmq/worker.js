import { Worker } from "bullmq";
import Redis from "ioredis";

const connection = new Redis(process.env.REDIS_URL, { maxRetriesPerRequest: null });
const effects = new Redis(process.env.REDIS_URL);
new Worker("events", async () => { await effects.incr("effects"); }, { connection, concurrency: 16 });
