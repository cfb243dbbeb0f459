// Made of docs/openapi.json by scripts/console-build: a function for each operation.
// Paths' parameters come first, then those of the query by name, then what transport.js takes (body, match, signal).
import { ask } from "./transport.js";

/** How the appliance is. */
export const health = (query, more) => ask("GET", "/healthz", query, more);

/** Everything that is counted. */
export const metrics = (query, more) => ask("GET", "/metrics", query, more);

/** One address group, as it stands in a document. */
export const showAddressGroups = (project, name, query, more) => ask("GET", `/v1/address-groups/${encodeURIComponent(project)}/${encodeURIComponent(name)}`, query, more);

/** Puts a address group in the place of that of its name, or beside the others. Query: dry_run, max_disconnect, confirm. */
export const setAddressGroups = (project, name, query, more) => ask("PUT", `/v1/address-groups/${encodeURIComponent(project)}/${encodeURIComponent(name)}`, query, more);

/** Takes a address group away that nothing uses. Query: dry_run, max_disconnect, confirm. */
export const deleteAddressGroups = (project, name, query, more) => ask("DELETE", `/v1/address-groups/${encodeURIComponent(project)}/${encodeURIComponent(name)}`, query, more);

/** Rules that could go, or could let in less. Query: groups, since, limit, document. */
export const advice = (query, more) => ask("GET", "/v1/advice", query, more);

/** Frames as they come, with their verdicts, as pcapng. Query: nic, remote, local, port, protocol, verdict, reason, group, rule, direction, from, rate, count, seconds, snaplen. */
export const capture = (query, more) => ask("GET", "/v1/capture", query, more);

/** Keeps the change that awaits its confirmation. */
export const confirm = (query, more) => ask("POST", "/v1/confirm", query, more);

/** Connections and tombstones that fit, in the order in which they lie. Query: nic, vpc, remote, local, remote_port, local_port, protocol, state, opened, tombstone, rule, since, worker, limit, after, within, all. */
export const list = (query, more) => ask("GET", "/v1/connections", query, more);

/** How many connections and tombstones fit. Query: nic, vpc, remote, local, remote_port, local_port, protocol, state, opened, tombstone, rule, since, worker, limit, after, within, all. */
export const count = (query, more) => ask("GET", "/v1/connections/count", query, more);

/** Disconnects live connections that fit. Query: nic, vpc, remote, local, remote_port, local_port, protocol, state, opened, tombstone, rule, since, worker, limit, after, within, all. */
export const flush = (query, more) => ask("POST", "/v1/connections/flush", query, more);

/** Packets by reason, worker, NIC and port. */
export const counters = (query, more) => ask("GET", "/v1/counters", query, more);

/** The appliance at a glance, each second. Query: seconds. */
export const events = (query, more) => ask("GET", "/v1/events", query, more);

/** How a packet would be judged now, and why. */
export const explain = (query, more) => ask("POST", "/v1/explain", query, more);

/** One generation of the history. Query: wait, timeout. */
export const generation = (generation, query, more) => ask("GET", `/v1/generations/${encodeURIComponent(generation)}`, query, more);

/** The policy of a generation as a document. */
export const policyAt = (generation, query, more) => ask("GET", `/v1/generations/${encodeURIComponent(generation)}/policy`, query, more);

/** Security groups with the numbers of their rules, and their members. Query: limit, after, contains. */
export const groups = (query, more) => ask("GET", "/v1/groups", query, more);

/** The generations that are remembered. Query: limit, after. */
export const history = (query, more) => ask("GET", "/v1/history", query, more);

/** NICs with their addresses, groups and limits. Query: limit, after, contains. */
export const nics = (query, more) => ask("GET", "/v1/nics", query, more);

/** One NIC, as it stands in a document. */
export const showNics = (project, name, query, more) => ask("GET", `/v1/nics/${encodeURIComponent(project)}/${encodeURIComponent(name)}`, query, more);

/** Puts a NIC in the place of that of its name, or beside the others. Query: dry_run, max_disconnect, confirm. */
export const setNics = (project, name, query, more) => ask("PUT", `/v1/nics/${encodeURIComponent(project)}/${encodeURIComponent(name)}`, query, more);

/** Takes a NIC away that nothing uses. Query: dry_run, max_disconnect, confirm. */
export const deleteNics = (project, name, query, more) => ask("DELETE", `/v1/nics/${encodeURIComponent(project)}/${encodeURIComponent(name)}`, query, more);

/** The appliance at a glance. */
export const now = (query, more) => ask("GET", "/v1/now", query, more);

/** This description. */
export const served = (query, more) => ask("GET", "/v1/openapi.json", query, more);

/** The present policy as a document. */
export const policy = (query, more) => ask("GET", "/v1/policy", query, more);

/** Makes a document the policy. Query: dry_run, max_disconnect, confirm, allow_empty, file. */
export const apply = (query, more) => ask("POST", "/v1/policy", query, more);

/** Adds the objects of a document, or replaces those of their names. Query: dry_run, max_disconnect, confirm. */
export const mergeDocument = (query, more) => ask("PATCH", "/v1/policy", query, more);

/** How this run began. */
export const restart = (query, more) => ask("GET", "/v1/restart", query, more);

/** Goes back to the policy of an earlier generation. Query: generation, dry_run, max_disconnect, confirm. */
export const rollback = (query, more) => ask("POST", "/v1/rollback", query, more);

/** What each rule did, and of staged ones what they would have done. Query: limit, after, contains. */
export const rules = (query, more) => ask("GET", "/v1/rules", query, more);

/** One security group, as it stands in a document. */
export const showSecurityGroups = (project, name, query, more) => ask("GET", `/v1/security-groups/${encodeURIComponent(project)}/${encodeURIComponent(name)}`, query, more);

/** Puts a security group in the place of that of its name, or beside the others. Query: dry_run, max_disconnect, confirm. */
export const setSecurityGroups = (project, name, query, more) => ask("PUT", `/v1/security-groups/${encodeURIComponent(project)}/${encodeURIComponent(name)}`, query, more);

/** Takes a security group away that nothing uses. Query: dry_run, max_disconnect, confirm. */
export const deleteSecurityGroups = (project, name, query, more) => ask("DELETE", `/v1/security-groups/${encodeURIComponent(project)}/${encodeURIComponent(name)}`, query, more);

/** Adds a rule at the end of a group's list. Query: dry_run, max_disconnect, confirm. */
export const addRule = (project, name, query, more) => ask("POST", `/v1/security-groups/${encodeURIComponent(project)}/${encodeURIComponent(name)}/rules`, query, more);

/** Puts a rule in the place of another. Query: dry_run, max_disconnect, confirm. */
export const setRule = (project, name, rule, query, more) => ask("PUT", `/v1/security-groups/${encodeURIComponent(project)}/${encodeURIComponent(name)}/rules/${encodeURIComponent(rule)}`, query, more);

/** Takes a rule away; those behind it move up. Query: dry_run, max_disconnect, confirm. */
export const deleteRule = (project, name, rule, query, more) => ask("DELETE", `/v1/security-groups/${encodeURIComponent(project)}/${encodeURIComponent(name)}/rules/${encodeURIComponent(rule)}`, query, more);

/** The present generation in numbers. */
export const snapshot = (query, more) => ask("GET", "/v1/snapshot", query, more);

/** Verdicts as they happen. Query: nic, remote, local, port, protocol, verdict, reason, group, rule, direction, from, rate, count, seconds, snaplen. */
export const trace = (query, more) => ask("GET", "/v1/trace", query, more);

/** One VPC, as it stands in a document. */
export const showVpcs = (name, query, more) => ask("GET", `/v1/vpcs/${encodeURIComponent(name)}`, query, more);

/** Puts a VPC in the place of that of its name, or beside the others. Query: dry_run, max_disconnect, confirm. */
export const setVpcs = (name, query, more) => ask("PUT", `/v1/vpcs/${encodeURIComponent(name)}`, query, more);

/** Takes a VPC away that nothing uses. Query: dry_run, max_disconnect, confirm. */
export const deleteVpcs = (name, query, more) => ask("DELETE", `/v1/vpcs/${encodeURIComponent(name)}`, query, more);

/** Who asks, and what they may do. */
export const whoami = (query, more) => ask("GET", "/v1/whoami", query, more);

/** What was decided about a packet. Query: packet, at, limit. */
export const why = (query, more) => ask("GET", "/v1/why", query, more);

/** Workers with their cores and load. */
export const workers = (query, more) => ask("GET", "/v1/workers", query, more);
