import { Worker } from "bullmq";
import Redis from "ioredis";
import http from "node:http";

const connection = new Redis(process.env.REDIS_URL, { maxRetriesPerRequest: null });
const effects = new Redis(process.env.REDIS_URL);
const { BENCH_AT_ONCE = 16, BENCH_PEER } = process.env;
const concurrency = Number(BENCH_AT_ONCE);
const agent = new http.Agent({ keepAlive: true, maxSockets: concurrency });

const count = () => effects.incr("effects");
const call = (job) => new Promise((resolve, reject) => {
  const url = `${BENCH_PEER}/v1/subscriptions/${job.data.data.object.id}`;
  http.get(url, { agent }, (response) => response.resume().on("end", resolve)).on("error", reject);
});
new Worker("events", BENCH_PEER ? call : count, { connection, concurrency });
