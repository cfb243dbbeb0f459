// Is it well, what goes through, what changed last.
import { mayWrite, undo } from "../change.jsx";
import { Plot } from "../plot.jsx";
import { Panel, Sign, Table } from "../ui.jsx";
import { PASSES, REASONS, clock, lasting, many, megabits, moment, percent, rate } from "../words.js";

const HEALTH = { ok: ["ok", "All is well."], degraded: ["warn", "Packets are judged; something else is not as it should be."], failed: ["bad", "Packets are not judged, or nobody can change how."] };

function Health({ now }) {
  const [kind, said] = HEALTH[now.status];
  const lasting_ = now.problems.filter((problem) => problem.ended === undefined);
  const over = now.problems.filter((problem) => problem.ended !== undefined);
  return (
    <Panel title="Health" aside={<span>up {lasting(now.uptime)}</span>}>
      <p class="big"><Sign kind={kind}>{now.status}</Sign> <span>{said}</span></p>
      {now.settings.length > 0 && <p><Sign kind="warn">not strict: {now.settings.join("; ")}</Sign></p>}
      <ul class="problems">
        {lasting_.map((problem) => <li><Sign kind="warn"><b>{problem.what}</b>: {problem.problem}</Sign> <span class="cure">{problem.cure}</span> <span class="faint">since {clock(problem.since)}</span></li>)}
        {over.map((problem) => <li class="faint"><Sign kind="note">{problem.what}: {problem.problem}</Sign> <span>over since {clock(problem.ended)}</span></li>)}
      </ul>
    </Panel>
  );
}

function Traffic({ live: { now, rates, past } }) {
  return (
    <Panel title="Traffic" class="span-2" aside={<span>{now.connections} of {now.capacity} connections</span>}>
      <p class="figures">
        <span><b>{rate(rates?.packets.in)}</b> in/s</span>
        <span><b>{rate(rates?.packets.pass)}</b> pass/s</span>
        <span><b>{rate(rates?.packets.drop)}</b> drop/s</span>
        <span><b>{megabits(rates?.bytes.pass)}</b> Mbit/s passed</span>
      </p>
      <Plot label="Packets by the second" past={past} unit={(n) => `${rate(n)}/s`} lines={[["pass", "pass", (p) => p.packets.pass], ["drop", "drop", (p) => p.packets.drop]]} />
    </Panel>
  );
}

function Drops({ now, rates }) {
  const all = Object.entries(now.reasons).filter(([reason]) => !PASSES.has(reason));
  const total = all.reduce((sum, [, n]) => sum + n, 0);
  const rows = all.map(([reason, n]) => ({ reason, n, rate: rates?.reasons[reason] ?? null })).sort((a, b) => (b.rate ?? 0) - (a.rate ?? 0) || b.n - a.n);
  return (
    <Panel title="Drops" aside={<a href="#/packets?verdict=drop">See them as they come</a>}>
      <Table label="Drops by reason" id={(row) => row.reason} rows={rows} empty="Nothing was dropped since the start." columns={[
        ["reason", (row) => <a href={`#/packets?verdict=drop&reason=${row.reason}`}>{row.reason}</a>],
        ["drop/s", (row) => rate(row.rate), "number"],
        ["share", (row) => percent(row.n / total), "number"],
        ["drops", (row) => row.n, "number"],
        ["means", (row) => REASONS[row.reason], "wide"],
      ]} />
    </Panel>
  );
}

const changes = (record) => [["+", record.added], ["~", record.changed], ["-", record.removed]].flatMap(([sign, names]) => names.map((name) => `${sign}${name}`));

/** What a generation changed, in a line. */
export function what(record) {
  const all = changes(record);
  const named = all.slice(0, 8).join(" ");
  return [record.back_to !== null && `back to ${record.back_to}`, named, all.length > 8 && `and ${all.length - 8} more`].filter(Boolean).join(" ") || "-";
}

function Last({ record }) {
  if (!record) return null;
  const cut = record.disconnected + record.disconnected_by_rejudging;
  return (
    <Panel title="Last change" aside={<a href="#/changes">All changes</a>}>
      <p class="big">generation {record.generation} <span>by {record.who} ({record.origin})</span></p>
      <p><code>{what(record)}</code></p>
      <p><Sign kind={cut ? "warn" : "ok"}>disconnected {many(cut, "connection")}</Sign> <span class="faint">{moment(record.at)}</span></p>
      {mayWrite() && record.origin !== "start" && <p class="buttons"><button type="button" onClick={() => undo(record)}>Undo…</button></p>}
    </Panel>
  );
}

const Ports = ({ now, rates }) => (
  <Panel title="Ports">
    <Table label="Ports" id={(port) => port.name} rows={now.ports.map((port, at) => ({ ...port, rate: rates?.ports[at] }))} mark={(port) => (port.link === "up" ? "" : "marked")} columns={[
      ["port", (port) => port.name],
      ["link", (port) => <Sign kind={port.link === "up" ? "ok" : "warn"}>{port.link}</Sign>],
      ["received/s", (port) => rate(port.rate?.rx_packets), "number"],
      ["sent/s", (port) => rate(port.rate?.tx_packets), "number"],
      ["lost/s", (port) => rate(port.rate && port.rate.rx_lost + port.rate.tx_lost), "number"],
      ["lost", (port) => port.rx_lost + port.tx_lost, "number"],
    ]} />
  </Panel>
);

const Workers = ({ now, rates }) => (
  <Panel title="Workers">
    <Table label="Workers" id={(worker) => worker.id} rows={now.workers.map((worker, at) => ({ ...worker, rate: rates?.workers[at] }))} columns={[
      ["worker", (worker) => worker.id],
      ["core", (worker) => worker.core, "number"],
      ["load", (worker) => percent(worker.rate?.load), "number"],
      ["pass/s", (worker) => rate(worker.rate?.pass), "number"],
      ["drop/s", (worker) => rate(worker.rate?.drop), "number"],
      ["follows", (worker) => <Sign kind={worker.acknowledged ? "ok" : "warn"}>{worker.acknowledged ? "yes" : "not yet"}</Sign>],
    ]} />
  </Panel>
);

export function Overview({ live }) {
  const { now, rates } = live;
  return (
    <div class="grid">
      <Health now={now} />
      <Last record={now.last} />
      <Traffic live={live} />
      <Drops now={now} rates={rates} />
      <div class="stack"><Ports now={now} rates={rates} /><Workers now={now} rates={rates} /></div>
    </div>
  );
}
