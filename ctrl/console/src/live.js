// What the appliance says of itself each second, for every view at once; and what became of the session.
import { useEffect, useState } from "preact/hooks";
import { now as moment, whoami } from "./api.js";
import { Refusal, open, parts, token, whenOver } from "./transport.js";

/** Moments that plots show. */
const KEPT = 120;
/** Between two attempts to reach an appliance that does not answer. */
const AGAIN = 1000;

/**
 * `session`: "asking", "signed-out" or "open"; `me`: who asks; `now`: the last moment; `rates`: what came by the second since the one
 * before; `past`: rates of the last two minutes; `lost`: since when nothing comes; `runs`: how often the appliance was met anew.
 */
export const live = { session: "asking", me: null, now: null, rates: null, past: [], lost: null, runs: 0, told: "" };
const watchers = new Set();
const tell = (change) => {
  Object.assign(live, change);
  for (const watcher of watchers) watcher({});
};

/** Draws a view again whenever something changes. */
export function useLive() {
  const [, draw] = useState();
  useEffect(() => {
    watchers.add(draw);
    return () => watchers.delete(draw);
  }, []);
  return live;
}

const per = (seconds, now, before) => Math.max(0, (now - before) / seconds);

/** What came by the second between two moments; null where they are of two runs. */
export function ratesOf(now, before) {
  const seconds = before ? now.time - before.time : 0;
  if (!before || seconds <= 0 || now.uptime < before.uptime) return null;
  const rated = (which, keys) => Object.fromEntries(keys.map((key) => [key, per(seconds, now[which][key] ?? 0, before[which][key] ?? 0)]));
  const same = (list, key) => (one) => before[list].find((other) => other[key] === one[key]);
  return {
    time: now.time,
    packets: rated("packets", ["in", "pass", "drop", "observed"]),
    bytes: rated("bytes", ["in", "pass", "drop"]),
    reasons: rated("reasons", Object.keys(now.reasons)),
    ports: now.ports.map((port) => {
      const was = same("ports", "name")(port) ?? port;
      const keys = ["rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_lost", "tx_lost"];
      return Object.fromEntries([["name", port.name], ...keys.map((key) => [key, per(seconds, port[key], was[key])])]);
    }),
    workers: now.workers.map((worker) => {
      const was = same("workers", "id")(worker) ?? worker;
      const busy = worker.busy_cycles - was.busy_cycles;
      const all = busy + worker.idle_cycles - was.idle_cycles;
      return { id: worker.id, pass: per(seconds, worker.pass, was.pass), drop: per(seconds, worker.drop, was.drop), load: all > 0 ? busy / all : 0 };
    }),
  };
}

function met(now) {
  // Two moments that are hardly apart say nothing of rates.
  if (live.now && now.uptime >= live.now.uptime && now.uptime - live.now.uptime < 0.4) return tell({ now: { ...now, time: live.now.time, uptime: live.now.uptime, packets: live.now.packets, bytes: live.now.bytes, reasons: live.now.reasons, ports: live.now.ports, workers: live.now.workers }, at: Date.now() });
  const anew = live.now && now.uptime < live.now.uptime;
  const rates = ratesOf(now, live.now);
  const past = anew ? [] : rates ? [...live.past.slice(1 - KEPT), rates] : live.past;
  tell({ now, rates, past, lost: null, at: Date.now(), runs: live.runs + (anew || live.lost ? 1 : 0) });
}

/** Has what is shown follow at once, after a change. */
export const look = () => moment().then(met, () => {});

let watching = null;

async function watch(signal) {
  while (!signal.aborted) {
    try {
      const answer = await open("GET", "/v1/events", {}, { accept: "text/event-stream", signal });
      for await (const event of parts(answer, "\n\n")) {
        const data = event.split("\n").find((line) => line.startsWith("data: "));
        if (data) met(JSON.parse(data.slice(6)));
      }
      continue;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refusal && error.status === 401) return;
      if (!live.lost) tell({ lost: Date.now() / 1000 });
    }
    await new Promise((done) => setTimeout(done, AGAIN));
  }
}

function begin() {
  watching?.abort();
  watching = new AbortController();
  watch(watching.signal);
}

/** Tries the token of this tab, or goes on without one where strangers may look. */
export async function enter() {
  try {
    const me = await whoami();
    tell({ session: "open", me, told: "" });
    begin();
  } catch (error) {
    if (error.status === 401) return;
    tell({ lost: live.lost ?? Date.now() / 1000, session: live.session === "open" ? "open" : "asking" });
    setTimeout(enter, AGAIN);
  }
}

/** With this token from now on. */
export async function signIn(text) {
  token.set(text);
  await enter();
}

/** Forgets the token and all that was shown. */
export function signOut(told = "") {
  token.forget();
  watching?.abort();
  tell({ session: "signed-out", me: null, now: null, rates: null, past: [], told });
}

whenOver(() => {
  const had = live.session === "open";
  const told = had ? "The session is over: the appliance no longer takes this token." : token.get() ? "The appliance does not know this token." : "";
  signOut(told);
});

// A page that nobody looks at asks nothing: browsers hold six connections of one host.
document.addEventListener("visibilitychange", () => {
  if (live.session !== "open") return;
  if (document.hidden) watching?.abort();
  else begin();
});
