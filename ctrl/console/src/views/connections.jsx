// Connections and tombstones, page by page, and their end.
import { useEffect, useState } from "preact/hooks";
import { count, flush, list } from "../api.js";
import { mayWrite } from "../change.jsx";
import { Dialog, Field, Pager, Panel, Sign, Table, Wrong, options, useSettled } from "../ui.jsx";
import { end, lasting, many } from "../words.js";

const STATES = ["", "syn-sent", "syn-received", "established", "fin-wait", "closing", "one-way", "two-way", "icmp"];
const NAMES = ["nic", "vpc", "local", "remote", "local_port", "remote_port", "protocol", "state", "opened", "tombstone", "rule"];

/** The same two ends, as `why` asks for them. */
const tuple = (c) => {
  const [local, remote] = [end(c.local, c.local_port), end(c.remote, c.remote_port)];
  return c.opened === "outbound" ? `outbound ${c.protocol} ${local} > ${remote}` : `inbound ${c.protocol} ${remote} > ${local}`;
};

/** Rows of a page. */
const PAGE = 100;
/** How long the appliance may look before it answers: among a million it looks on with the next question. */
const WITHIN = 120;

/** A page of those that fit, as it is found: rows come while more are looked for. */
function useScan(filter, after, turn) {
  const [state, set] = useState({ rows: [], next: null, busy: true, error: null });
  useEffect(() => {
    const abort = new AbortController();
    let [rows, next] = [[], after];
    set((was) => ({ ...was, busy: true, error: null }));
    (async () => {
      do {
        let behind = null;
        const found = await list({ ...filter, limit: PAGE - rows.length, after: next, within: WITHIN }, { signal: abort.signal, heads: (headers) => { behind = headers.get("portcullis-next"); } });
        [rows, next] = [[...rows, ...found], behind];
        const more = next && rows.length < PAGE;
        if (!abort.signal.aborted) set({ rows, next, busy: Boolean(more), error: null });
      } while (next && rows.length < PAGE && !abort.signal.aborted);
    })().catch((error) => error.name !== "AbortError" && set({ rows: [], next: null, busy: false, error }));
    return () => abort.abort();
  }, [JSON.stringify(filter), after, turn]);
  return state;
}

function Flush({ filter, close, done }) {
  const [state, set] = useState({ busy: false, error: null, count: null });
  const [fit, tell] = useState(null);
  const given = Object.values(filter).some(Boolean);
  useState(() => { count({ ...filter, tombstone: "false" }).then((found) => tell(found.count), (error) => set({ busy: false, error, count: null })); });
  const act = async () => {
    set({ busy: true, error: null, count: null });
    try {
      const found = await flush({ ...filter, tombstone: filter.tombstone || undefined, all: given ? undefined : true });
      set({ busy: false, error: null, count: found.count });
      done();
    } catch (error) {
      set({ busy: false, error, count: null });
    }
  };
  return (
    <Dialog title="Flush connections" close={close}>
      {state.count === null ? (
        <>
          <p>{given ? Object.entries(filter).filter(([, value]) => value).map(([name, value]) => `${name} ${value}`).join(", ") : "Every connection"}</p>
          <p role="status"><Sign kind="warn">{fit === null ? "Counting…" : `${many(fit, "live connection")} now`}</Sign></p>
          <p>Inbound ones become tombstones, which no rollback takes back; outbound ones are gone.</p>
          <Wrong error={state.error} />
          <p class="buttons"><button type="button" class="main" disabled={state.busy} onClick={act}>Flush</button><button type="button" onClick={close}>Leave them</button></p>
        </>
      ) : (
        <><p role="status"><Sign kind="ok">disconnected {many(state.count, "connection")}</Sign></p><p class="buttons"><button type="button" class="main" onClick={close}>Done</button></p></>
      )}
    </Dialog>
  );
}

export function Connections({ at }) {
  const [filter, set] = useState(() => Object.fromEntries(NAMES.map((name) => [name, at.query[name] ?? ""])));
  const settled = useSettled(JSON.stringify(filter));
  const [flushing, show] = useState(null);
  const [counted, tell] = useState(null);
  const [pages, go] = useState({ of: settled, behind: [] });
  const behind = pages.of === settled ? pages.behind : [];
  const [turn, look] = useState(0);
  const again = () => look((n) => n + 1);
  const { rows, next, busy, error } = useScan(JSON.parse(settled), behind.at(-1), turn);
  const turned = (behind) => go({ of: settled, behind });
  const pager = { page: behind.length + 1, busy, previous: behind.length ? () => turned(behind.slice(0, -1)) : null, next: next && !busy ? () => turned([...behind, next]) : null };
  const on = (name) => ({ value: filter[name], name, onInput: (event) => { tell(null); set({ ...filter, [name]: event.currentTarget.value }); } });
  const ask = () => { tell("Counting…"); count(JSON.parse(settled)).then((found) => tell(many(found.count, "connection")), (failed) => tell(failed.message)); };
  const carried = rows.some((c) => c.bytes);
  const given = NAMES.filter((name) => filter[name]);
  // On a telephone they would fill the first screen.
  const [unfolded] = useState(() => !matchMedia("(max-width: 760px)").matches);
  return (
    <Panel title="Connections and tombstones" aside={<><span role="status">{counted}</span><button type="button" onClick={ask}>Count them</button>{mayWrite() && <button type="button" onClick={() => show(filter)}>Flush these…</button>}</>}>
      <details class="filters" open={unfolded}>
      <summary>Filters{given.length > 0 && `: ${given.map((name) => `${name} ${filter[name]}`).join(", ")}`}</summary>
      <form class="fields tight" onSubmit={(event) => { event.preventDefault(); again(); }}>
        <Field label="NIC" data-filter {...on("nic")} />
        <Field label="Local" {...on("local")} />
        <Field label="Local port" inputMode="numeric" {...on("local_port")} />
        <Field label="Remote" {...on("remote")} />
        <Field label="Remote port" inputMode="numeric" {...on("remote_port")} />
        <Field label="Protocol" {...on("protocol")} />
        <Field label="State" {...on("state")}>{options(STATES)}</Field>
        <Field label="Opened" {...on("opened")}>{options(["", "inbound", "outbound"])}</Field>
        <Field label="Kind" {...on("tombstone")}>{options([["", "any"], ["false", "live"], ["true", "tombstones"]])}</Field>
        <Field label="Rule" {...on("rule")} />
        <p class="buttons"><button>Look again</button></p>
      </form>
      </details>
      <Wrong error={error} />
      <Table label="Connections" id={(c) => c.id} rows={rows} empty={busy ? "Looking…" : "None fits."} mark={(c) => (c.tombstone ? "marked" : "")} columns={[
        ["NIC", (c) => c.nic],
        ["opened", (c) => c.opened],
        ["protocol", (c) => c.protocol],
        ["local", (c) => end(c.local, c.local_port)],
        ["remote", (c) => end(c.remote, c.remote_port)],
        ["state", (c) => (c.tombstone ? <Sign kind="warn">tombstone</Sign> : c.state)],
        ["time left", (c) => lasting(Math.ceil(c.expires_in)), "number"],
        ...(carried ? [["bytes in", (c) => c.bytes?.inbound ?? "-", "number"], ["bytes out", (c) => c.bytes?.outbound ?? "-", "number"]] : []),
        ["rule", (c) => (c.rule ? <a href={`#/groups/${encodeURIComponent(c.rule.replace(/#.*/, ""))}`}>{c.rule}</a> : "-")],
        ["", (c) => (
          <span class="buttons">
            <a href={`#/packets?${new URLSearchParams({ why: tuple(c), nic: c.nic })}`}>Why?</a>
            {mayWrite() && !c.tombstone && <button type="button" onClick={() => show({ nic: c.nic, protocol: c.protocol, local: c.local, local_port: c.local_port ?? "", remote: c.remote, remote_port: c.remote_port ?? "" })}>Flush…</button>}
          </span>
        )],
      ]} />
      <Pager {...pager} what="connections" />
      {flushing && <Flush filter={flushing} close={() => show(null)} done={again} />}
    </Panel>
  );
}
