// A change from its exact preview to its receipt, and the one that awaits its confirmation.
import { useEffect, useState } from "preact/hooks";
import { confirm, rollback } from "./api.js";
import { live, look, useLive } from "./live.js";
import { Dialog, Sign, Table, Wrong, useAsk } from "./ui.jsx";
import { end, lasting, many } from "./words.js";

let propose = () => {};
/**
 * Shows what a change would do, and makes it if that is wanted. `make(query, more)` is the API's call; it is asked with `dry_run` first.
 * `done` is told the receipt.
 */
export const proposed = (title, make, done) => propose({ title, make, done });

/** Whether this user may change anything. */
export const mayWrite = () => live.me?.may === "write";

const SIGNS = { added: ["+", "new"], changed: ["~", "changed"], removed: ["-", "gone"] };

/** What changes, line by line, as `portcullis diff` prints it. */
export const Lines = ({ of }) => (
  <ul class="lines" aria-label="What changes">
    {of.changes.map((line) => (
      <li class={line.change}>
        <span class="what"><b aria-hidden="true">{SIGNS[line.change][0]}</b> <span class="unseen">{SIGNS[line.change][1]}: </span>{line.kind} <code>{line.rule ?? line.object}</code></span> <span>{line.text}</span>
      </li>
    ))}
    {of.changes_left_out > 0 && <li>and {of.changes_left_out} more</li>}
    {!of.changes.length && <li>Nothing.</li>}
  </ul>
);

const listed = (names) => (names.length > 12 ? `${names.slice(0, 12).join(", ")} and ${names.length - 12} more` : names.join(", "));

/** What becomes of connections. */
export function Effect({ of }) {
  const by = of.affected && Object.entries(of.affected.by_rule);
  return (
    <div>
      <p class="effect">
        <Sign kind={of.disconnected ? "warn" : "ok"}>
          {of.state === "dry-run" ? "disconnects" : "disconnected"} <b>{many(of.disconnected, "connection")}</b>
        </Sign>
        {of.affected?.revived > 0 && <span>, brings {of.affected.revived} back</span>}
      </p>
      {of.flushed.length > 0 && <p>Flushes {many(of.flushed.length, "NIC")}: {listed(of.flushed)}</p>}
      {of.rejudged.length > 0 && <p>Judges again: {listed(of.rejudged)}</p>}
      {of.ended.length > 0 && <p>Ends: {listed(of.ended)}</p>}
      {of.warnings.map((warning) => <p><Sign kind="warn">{warning}</Sign></p>)}
      {by?.length > 0 && <p>Of those, by the rule that let them in: {by.map(([rule, n]) => `${rule} ${n}`).join(", ")}</p>}
      {of.affected?.connections.length > 0 && (
        <Table label="Connections that would be disconnected" id={(c) => c.id} rows={of.affected.connections.slice(0, 100)} columns={[
          ["NIC", (c) => c.nic], ["opened", (c) => c.opened], ["protocol", (c) => c.protocol], ["local", (c) => end(c.local, c.local_port)],
          ["remote", (c) => end(c.remote, c.remote_port)], ["state", (c) => c.state], ["rule", (c) => c.rule ?? "-"],
        ]} />
      )}
    </div>
  );
}

function Receipt({ of }) {
  const said = { acknowledged: "Every worker judges by it.", pending: "Some workers have not answered yet.", unconfirmed: "In force; it goes back by itself unless it is confirmed.", unchanged: "There was nothing to change." };
  return (
    <div role="status">
      <p><Sign kind={of.state === "pending" ? "warn" : "ok"}>generation {of.generation}: {of.state}</Sign> {said[of.state]}</p>
      <Lines of={of} />
      <Effect of={of} />
      {of.publish_us !== null && <p class="faint">published in {of.publish_us} µs{of.acknowledged_us !== null && `, acknowledged by the last worker ${of.acknowledged_us} µs later`}; by {of.who}</p>}
    </div>
  );
}

/** The dialog of a change; one at a time, wherever it was proposed. */
export function Proposal() {
  const [change, set] = useState(null);
  propose = (next) => set({ ...next, turn: (change?.turn ?? 0) + 1 });
  return change && <Proposed key={change.turn} change={change} close={() => set(null)} />;
}

function Proposed({ change, close }) {
  const [generation, hold] = useState(live.now?.generation);
  const [guarded, guard] = useState(true);
  const [seconds, wait] = useState("60");
  const [made, tell] = useState({ receipt: null, error: null, busy: false });
  const preview = useAsk(async (more) => {
    const seen = await change.make({ dry_run: true }, more);
    hold(seen.generation);
    return seen;
  }, [change]);
  const apply = async (event) => {
    event.preventDefault();
    tell({ receipt: null, error: null, busy: true });
    try {
      const receipt = await change.make(guarded ? { confirm: seconds } : {}, { match: generation });
      tell({ receipt, error: null, busy: false });
      look();
      change.done?.(receipt);
    } catch (error) {
      tell({ receipt: null, error, busy: false });
    }
  };
  const seen = preview.data;
  return (
    <Dialog title={change.title} close={close} wide>
      {made.receipt ? (
        <><Receipt of={made.receipt} /><p class="buttons"><button type="button" class="main" onClick={close} autofocus>Done</button></p></>
      ) : (
        <>
          <Wrong error={preview.error} />
          {preview.busy && <p role="status">Working out what it would do…</p>}
          {seen && <div role="status"><Lines of={seen} /><Effect of={seen} /></div>}
          <Wrong error={made.error} />
          {made.error?.status === 412 && <p class="buttons"><button type="button" onClick={() => { tell({ receipt: null, error: null, busy: false }); preview.again(); }}>Preview again</button></p>}
          {seen && !mayWrite() && <p><Sign kind="note">You may only look: this changes nothing.</Sign></p>}
          {seen && mayWrite() && (
            <form class="buttons" onSubmit={apply}>
              <label class="check"><input type="checkbox" checked={guarded} onChange={(event) => guard(event.currentTarget.checked)} /> goes back by itself unless confirmed within</label>
              <label class="inline"><input type="number" min="1" max="86400" required={guarded} disabled={!guarded} value={seconds} onInput={(event) => wait(event.currentTarget.value)} aria-label="Seconds to confirm within" /> s</label>
              <button class="main" disabled={made.busy || preview.busy || !seen.changes.length && !seen.added.length}>{made.busy ? "Applying…" : "Apply"}</button>
              <button type="button" onClick={close}>Leave it</button>
            </form>
          )}
        </>
      )}
    </Dialog>
  );
}

/** Above every view while a change awaits its confirmation. */
export function Awaited() {
  const { now, at } = useLive();
  const [, tick] = useState(0);
  const [error, fail] = useState(null);
  const awaited = now?.awaited;
  useEffect(() => {
    if (!awaited) return fail(null);
    const timer = setInterval(() => tick((n) => n + 1), 250);
    return () => clearInterval(timer);
  }, [!awaited]);
  if (!awaited) return null;
  const left = Math.max(0, awaited.seconds_left - (Date.now() - at) / 1000);
  const act = (make) => make().then(() => { fail(null); look(); }, fail);
  return (
    <section class="awaited" aria-label="A change awaits its confirmation">
      <p><Sign kind="warn">Generation {awaited.generation} goes back to {awaited.before} in <b class="countdown">{lasting(Math.ceil(left))}</b> unless it is confirmed.</Sign></p>
      {mayWrite() && (
        <p class="buttons">
          <button type="button" class="main" onClick={() => act(() => confirm())}>Confirm</button>
          <button type="button" onClick={() => act(() => rollback({ generation: awaited.before }))}>Go back now</button>
        </p>
      )}
      <Wrong error={error} />
    </section>
  );
}

/** Undoes the last change, by its exact preview. */
export const undo = (record) => proposed(`Undo generation ${record.generation}`, (query, more) => rollback({ ...query, generation: record.generation - 1 }, more));
