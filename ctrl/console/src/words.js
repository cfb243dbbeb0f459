// Numbers and times as `portcullis top` prints them.

/** Something by the second: small ones to a tenth. */
export const rate = (n) => (n === null || n === undefined ? "-" : n === 0 ? "0" : n < 9.95 ? n.toFixed(1) : n.toFixed(0));

/** Bytes by the second in millions of bits. */
export const megabits = (bytes) => (bytes === null || bytes === undefined ? "-" : (bytes * 8e-6).toFixed(3));

/** A share of 1. What is not all does not look like all, what is not nothing not like nothing. */
export function percent(share) {
  if (share === null || share === undefined || Number.isNaN(share)) return "-";
  if (share > 0 && share < 0.01) return "<1 %";
  return `${share < 1 ? Math.min(99, share * 100).toFixed(0) : (share * 100).toFixed(0)} %`;
}

const two = (n) => String(n).padStart(2, "0");

/** Seconds since 1970 as date and time, UTC. */
export function moment(seconds) {
  const d = new Date(seconds * 1000);
  return `${d.getUTCFullYear()}-${two(d.getUTCMonth() + 1)}-${two(d.getUTCDate())} ${clock(seconds)}`;
}

/** Seconds since 1970 as a time of day, UTC. */
export function clock(seconds) {
  const d = new Date(seconds * 1000);
  return `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}:${two(d.getUTCSeconds())}`;
}

/** How long something lasts, in seconds. */
export function lasting(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const [d, h, m] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60];
  if (d) return `${d} d ${two(h)} h`;
  if (h) return `${h} h ${two(m)} min`;
  if (m) return `${m} min ${two(s % 60)} s`;
  return `${s} s`;
}

/** So many of something. */
export const many = (n, one, more = `${one}s`) => `${n} ${n === 1 ? one : more}`;

/** An end of a connection. */
export const end = (address, port) => (port === null || port === undefined ? address : address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`);

/** An object's project and name, as paths of the API want them. */
export const key = (name) => (name.includes("/") ? name.split("/", 2) : ["default", name]);

/** What each reason means, as docs/interfaces.md says. */
export const REASONS = {
  established: "of a live connection",
  new: "opened one",
  related: "an ICMP error about one",
  fragment: "behind a first fragment that passed",
  control: "not judged by rules",
  "no-rule": "no rule matches",
  denied: "a deny rule wins",
  tombstone: "its connection was disconnected by a change",
  invalid: "fits no connection, and can open none",
  malformed: "cut, or contradicts itself",
  "fragment-no-first": "a fragment whose first did not come within 1 s, or for which there was no room to wait",
  "unknown-segment": "no VPC has the segment",
  "unknown-source": "no NIC has the address",
  "unknown-destination": "no NIC has the address",
  spoofed: "somebody else's address or MAC",
  rogue: "plays router or DHCP server",
  "not-ip": "another ethertype",
  "table-full": "no room for a connection",
  "nic-limit": "the NIC's max_connections",
  "handoff-full": "the ring between two workers is full",
  "tx-full": "the port took no more",
  "tx-down": "nobody is behind the port: its link is down, its interface gone, its peer absent",
};
/** Reasons of packets that pass. */
export const PASSES = new Set(["established", "new", "related", "fragment", "control"]);
