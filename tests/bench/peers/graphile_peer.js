// graphile-worker: `graphile_peer.js URL install | bulk N | callers N SECONDS | pace N | work N plain|tuned`.
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";

const [url, what, ...arguments_] = process.argv.slice(2);
const BULK = 1000;
const logger = new Logger(() => () => {});
const say = (...words) => console.log(words.join(" "));
const now = () => BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e3)) * 1000n;
const pool = (max) => {
  const made = new pg.Pool({ connectionString: url, max });
  // The server is stopped under it at the end of each run.
  made.on("error", () => {}).on("connect", (client) => client.on("error", () => {}));
  return made;
};
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// What the project's own page on performance sets for throughput.
const TUNED = {
  concurrentJobs: 24,
  maxPoolSize: 25,
  localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0,
};
const PLAIN = { concurrentJobs: 32, maxPoolSize: 34 };

async function work(jobs, how) {
  let seen = 0;
  const noop = (payload) => {
    if (!seen++) say("FIRST", now());
    if (payload.sent) say("LATE", now() - BigInt(payload.sent));
    if (seen === jobs) say("LAST", now());
  };
  const runner = await run({
    pgPool: pool(how === "tuned" ? TUNED.maxPoolSize : PLAIN.maxPoolSize),
    taskList: { noop },
    crontab: "",
    noHandleSignals: true,
    preset: { worker: { ...(how === "tuned" ? TUNED : PLAIN), logger } },
  });
  process.on("SIGTERM", () => process.exit(0));
  await runner.promise;
}

const pgPool = what === "work" ? undefined : pool(32);
const utils = pgPool && (await makeWorkerUtils({ pgPool, logger }));
const enqueue = (sent) => utils.addJob("noop", { sent: sent ? String(sent) : 0 });

async function callers(count, seconds) {
  let done = 0;
  const started = performance.now();
  const caller = async () => {
    while (performance.now() - started < seconds * 1000) {
      await enqueue(0n);
      done++;
    }
  };
  await Promise.all(Array.from({ length: count }, caller));
  say("RATE", (done * 1000) / (performance.now() - started));
}

async function bulk(jobs) {
  const started = performance.now();
  for (let n = 0; n < jobs; n += BULK) {
    await utils.addJobs(Array.from({ length: Math.min(BULK, jobs) }, () => ({ identifier: "noop", payload: { sent: 0 } })));
  }
  say("RATE", (jobs * 1000) / (performance.now() - started));
}

async function pace(jobs) {
  const calls = [];
  for (let n = 0; n < jobs; n++) {
    calls.push(enqueue(now()));
    await pause(20);
  }
  await Promise.all(calls);
  say("RATE", 50);
}

switch (what) {
  case "install":
    await utils.migrate();
    break;
  case "work":
    await work(Number(arguments_[0]), arguments_[1]);
    break;
  case "bulk":
    await bulk(Number(arguments_[0]));
    break;
  case "callers":
    await callers(Number(arguments_[0]), Number(arguments_[1]));
    break;
  case "pace":
    await pace(Number(arguments_[0]));
    break;
}
if (what !== "work") process.exit(0);
