// Single packets: as they come, why one was dropped, and the rule that would let it pass.
import { useEffect, useRef, useState } from "preact/hooks";
import { addRule, explain, showNics, why } from "../api.js";
import { mayWrite, proposed } from "../change.jsx";
import { open, parts, save } from "../transport.js";
import { Field, Panel, Table, Verdict, Wrong, options } from "../ui.jsx";
import { REASONS, clock, end, key, many, moment } from "../words.js";

/** Packets that are shown, the last ones. */
const SHOWN = 200;
const WITH_PORTS = new Set(["tcp", "udp", "sctp", "dccp", "udplite"]);
const FILTERS = ["nic", "remote", "local", "port", "protocol", "verdict", "reason", "direction", "group", "rule"];

/** The tuple of a packet, as `portcullis why` takes it; null for what is no IP packet. */
function tuple(packet) {
  if (!packet.protocol || !packet.local || !packet.remote) return null;
  const port = WITH_PORTS.has(packet.protocol);
  const local = end(packet.local, port ? packet.local_port : null);
  const remote = end(packet.remote, port ? packet.remote_port : null);
  const [source, destination] = packet.direction === "outbound" ? [local, remote] : [remote, local];
  return `${packet.direction ?? "inbound"} ${packet.protocol} ${source} > ${destination}`;
}

/** The narrowest rule that would let a connection of such packets open. */
export function ruleFor(packet) {
  const host = `${packet.remote}/${packet.remote.includes(":") ? 128 : 32}`;
  const rule = { direction: packet.direction, ethertype: packet.remote.includes(":") ? "IPv6" : "IPv4", protocol: packet.protocol, remote: host };
  const port = packet.direction === "inbound" ? packet.local_port : packet.remote_port;
  if (WITH_PORTS.has(packet.protocol) && port) rule.ports = port;
  if (/^\d+$/.test(rule.protocol)) rule.protocol = Number(rule.protocol);
  return rule;
}

/** From "inbound tcp 192.0.2.1:5 > 10.0.0.1:22" to its parts. */
export function partsOf(description) {
  const found = description.match(/^\s*(inbound|outbound)?\s*(\S+)\s+(\S+)\s*>\s*(\S+)/);
  if (!found) return null;
  const [, direction = "inbound", protocol, source, destination] = found;
  const split = (text) => {
    const six = text.match(/^\[(.+)\](?::(\d+))?$/);
    if (six) return [six[1], six[2]];
    const colons = text.split(":").length - 1;
    return colons === 1 ? text.split(":") : [text, undefined];
  };
  const [[from, fromPort], [to, toPort]] = [split(source), split(destination)];
  const is = direction === "inbound";
  return { direction, protocol, local: is ? to : from, remote: is ? from : to, local_port: Number((is ? toPort : fromPort) ?? 0), remote_port: Number((is ? fromPort : toPort) ?? 0) };
}

/** Two clicks from a drop to the preview of the rule that would let it pass: this is the second. */
function Allow({ nic, packet }) {
  const [groups, set] = useState([]);
  const [group, choose] = useState("");
  useEffect(() => {
    showNics(...key(nic)).then((found) => {
      const project = key(nic)[0];
      const all = (found.security_groups ?? ["default"]).map((name) => (project === "default" || name.includes("/") ? name : `${project}/${name}`));
      set(all);
      choose(all[0] ?? "");
    }, () => set([]));
  }, [nic]);
  if (!mayWrite() || !groups.length) return null;
  const rule = ruleFor(packet);
  const show = () => proposed(`Add a rule to ${group}`, (query, more) => addRule(...key(group), query, { ...more, body: rule }));
  return (
    <p class="buttons">
      <span>Would let it pass: <code>allow {rule.direction} {rule.protocol}{rule.ports ? ` ${rule.ports}` : ""} {rule.direction === "inbound" ? "from" : "to"} {rule.remote}</code> in</span>
      {groups.length > 1 ? <select aria-label="Group" value={group} onInput={(event) => choose(event.currentTarget.value)}>{options(groups)}</select> : <code>{group}</code>}
      <button type="button" class="main" onClick={show}>Preview adding it</button>
    </p>
  );
}

const Nearest = ({ of }) => of.length > 0 && (
  <><h3>Rules that came nearest</h3>
  <Table label="Rules that came nearest" id={(near) => near.rule} rows={of} columns={[
    ["rule", (near) => <a href={`#/groups/${encodeURIComponent(near.rule.replace(/#.*/, ""))}`}>{near.rule}</a>],
    ["says", (near) => near.rule_text, "wide"],
    ["does not fit", (near) => near.found.map((one) => `${one.field}: ${one.rule}, not ${one.packet}`).join("; ") || near.mismatch.join(", "), "wide"],
  ]} /></>
);

/** Why a tuple passes or drops now, and what was decided about it. */
export function Why({ asked, nic }) {
  const [state, set] = useState({ now: null, then: null, error: null });
  useEffect(() => {
    let mine = true;
    const past = why({ packet: asked, limit: 20 }).then((then) => ({ then }), (error) => ({ then: null, past: error }));
    past.then(async ({ then, past }) => {
      const whose = nic || then?.decisions.findLast((one) => one.nic)?.nic;
      const question = { description: /^(in|out)bound/.test(asked) ? asked : `inbound ${asked}`, nic: whose };
      const now = await explain({}, { body: question }).then((now) => ({ now }), (error) => ({ now: null, error }));
      if (mine) set({ then, past, error: null, ...now });
    });
    return () => { mine = false; };
  }, [asked, nic]);
  const { now, then } = state;
  const packet = partsOf(asked);
  return (
    <div role="status">
      <Wrong error={state.error} />
      {now && (
        <>
          <p class="big"><Verdict of={now.verdict} observed={now.observed} /> <span>{now.reason}: {now.why}</span></p>
          <p class="faint">{now.packet}, {now.nic ?? "nobody's"}; judged now, by generation {now.generation}</p>
          {now.rule && <p>By <a href={`#/groups/${encodeURIComponent(now.rule.replace(/#.*/, ""))}`}>{now.rule}</a>: {now.rule_text}</p>}
          {now.connection && <p>Of a connection of <code>{now.connection.state}</code>{now.connection.tombstone && `, a tombstone: its ends may open another in ${Math.ceil(now.connection.expires_in)} s`}</p>}
          {now.verdict === "drop" && now.reason === "no-rule" && packet && now.nic && <Allow nic={now.nic} packet={packet} />}
          <Nearest of={now.nearest} />
        </>
      )}
      {then && (then.decisions.length > 0 ? (
        <><h3>What was decided about it, the last first</h3><Table label="What was decided about it" id={(one) => `${one.worker}-${one.index}`} rows={[...then.decisions].reverse()} columns={COLUMNS} /></>
      ) : <p class="faint">No decision about it since {moment(then.since)}.</p>)}
      {state.past && <p class="faint">{state.past.message}</p>}
    </div>
  );
}

const COLUMNS = [
  ["time", (one) => clock(one.time)],
  ["verdict", (one) => <Verdict of={one.verdict} observed={one.observed} />],
  ["reason", (one) => <span title={REASONS[one.reason]}>{one.reason}</span>],
  ["NIC", (one) => one.nic ?? "-"],
  ["direction", (one) => one.direction ?? "-"],
  ["packet", (one) => one.packet, "wide"],
  ["rule", (one) => one.rule ?? "-"],
];

function Watch({ query, ask }) {
  const [filter, set] = useState(() => Object.fromEntries(FILTERS.map((name) => [name, query[name] ?? ""])));
  const [shown, show] = useState({ rows: [], lost: 0, count: 0 });
  const [on, turn] = useState(query.verdict !== undefined);
  const [error, fail] = useState(null);
  const held = useRef({ rows: [], lost: 0, count: 0 });
  const written = JSON.stringify(filter);
  useEffect(() => {
    if (!on) return;
    const abort = new AbortController();
    held.current = { rows: [], lost: 0, count: 0 };
    show(held.current);
    fail(null);
    const timer = setInterval(() => show({ ...held.current }), 250);
    (async () => {
      const answer = await open("GET", "/v1/trace", filter, { accept: "application/x-ndjson", signal: abort.signal });
      for await (const line of parts(answer, "\n")) {
        const one = JSON.parse(line);
        const { rows, lost, count } = held.current;
        if (one.lost !== undefined) held.current = { rows, count, lost: lost + one.lost };
        else held.current = { rows: [one, ...rows.slice(0, SHOWN - 1)], lost, count: count + 1 };
      }
      turn(false);
    })().catch((error) => { if (error.name !== "AbortError") { fail(error); turn(false); } });
    return () => { abort.abort(); clearInterval(timer); };
  }, [on, on && written]);
  const on_ = (name) => ({ value: filter[name], name, onInput: (event) => set({ ...filter, [name]: event.currentTarget.value }) });
  return (
    <Panel title="As they come" aside={<button type="button" class="main" onClick={() => turn(!on)}>{on ? "Stop" : "Watch"}</button>}>
      <form class="fields tight" onSubmit={(event) => { event.preventDefault(); turn(true); }}>
        <Field label="NIC" data-filter {...on_("nic")} />
        <Field label="Remote" {...on_("remote")} />
        <Field label="Local" {...on_("local")} />
        <Field label="Port" {...on_("port")} />
        <Field label="Protocol" {...on_("protocol")} />
        <Field label="Verdict" {...on_("verdict")}>{options(["", "pass", "drop"])}</Field>
        <Field label="Reason" {...on_("reason")}>{options(["", ...Object.keys(REASONS)])}</Field>
        <Field label="Direction" {...on_("direction")}>{options(["", "inbound", "outbound"])}</Field>
        <Field label="Rule" {...on_("rule")} />
      </form>
      <Wrong error={error} />
      <p class="faint" role="status">{on ? "Watching: " : ""}{many(shown.count, "packet")}{shown.rows.length === SHOWN && `, the last ${SHOWN} shown`}{shown.lost > 0 && `, ${shown.lost} lost on the way here`}</p>
      <Table label="Packets" id={(one) => `${one.worker}-${one.index}`} rows={shown.rows} empty={on ? "None yet." : "Nothing is watched."} columns={[
        ...COLUMNS,
        ["", (one) => tuple(one) && <button type="button" onClick={() => ask(tuple(one), one.nic)}>Why?</button>],
      ]} />
    </Panel>
  );
}

function Capture() {
  const [form, set] = useState({ nic: "", seconds: "5", count: "1000" });
  const [state, tell] = useState({ busy: false, error: null, told: "" });
  const on = (name) => ({ value: form[name], name, onInput: (event) => set({ ...form, [name]: event.currentTarget.value }) });
  const take = async (event) => {
    event.preventDefault();
    tell({ busy: true, error: null, told: "" });
    try {
      const answer = await open("GET", "/v1/capture", form, { accept: "application/x-pcapng" });
      const blob = await answer.blob();
      save("portcullis.pcapng", blob);
      tell({ busy: false, error: null, told: `${blob.size} bytes saved as portcullis.pcapng` });
    } catch (error) {
      tell({ busy: false, error, told: "" });
    }
  };
  return (
    <Panel title="Capture">
      <form class="fields tight" onSubmit={take}>
        <Field label="NIC of the capture" {...on("nic")} hint="all, if empty" />
        <Field label="Seconds" type="number" min="1" max="60" required {...on("seconds")} />
        <Field label="Packets at most" type="number" min="1" max="100000" required {...on("count")} />
        <p class="buttons"><button class="main" disabled={state.busy}>{state.busy ? "Capturing…" : "Capture to a file"}</button></p>
      </form>
      <Wrong error={state.error} />
      {state.told && <p role="status">{state.told}</p>}
    </Panel>
  );
}

export function Packets({ at }) {
  const [asked, ask] = useState({ text: at.query.why ?? "", nic: at.query.nic ?? "" });
  const [text, type] = useState(asked.text);
  const answer = useRef();
  const about = (tuple, nic) => {
    type(tuple);
    ask({ text: tuple, nic: nic ?? "" });
    answer.current?.scrollIntoView({ block: "start" });
  };
  return (
    <div class="stack">
      <div ref={answer}>
        <Panel title="Why">
          <form class="buttons" onSubmit={(event) => { event.preventDefault(); ask({ text, nic: "" }); }}>
            <Field label="Packet" size="56" required placeholder="tcp 198.51.100.9:40000 > 10.5.6.7:22" value={text} onInput={(event) => type(event.currentTarget.value)} />
            <button class="main">Ask why</button>
          </form>
          {asked.text && <Why key={asked.text} asked={asked.text} nic={asked.nic} />}
        </Panel>
      </div>
      <Watch key={JSON.stringify(at.query)} query={at.query} ask={about} />
      {mayWrite() && <Capture />}
    </div>
  );
}
