// What changed, by whom, what it cut; and the way back.
import { history, policyAt, rollback } from "../api.js";
import { mayWrite, proposed } from "../change.jsx";
import { save } from "../transport.js";
import { Pager, Panel, Sign, Table, Wrong, usePages } from "../ui.jsx";
import { moment } from "../words.js";
import { what } from "./overview.jsx";

function State({ of }) {
  if (of.confirmation === "awaited") return <Sign kind="warn">unconfirmed</Sign>;
  if (of.confirmation === "taken-back") return <Sign kind="note">taken back</Sign>;
  return <Sign kind={of.state === "pending" ? "warn" : "ok"}>{of.state}</Sign>;
}

export function Changes({ live }) {
  const { rows, pager, error } = usePages((limit, after, more) => history({ limit, after }, more), (page) => page.at(-1).generation, [live.now.generation, live.now.awaited?.generation ?? 0], 50);
  const back = (record) => proposed(`Go back to generation ${record.generation}`, (query, more) => rollback({ ...query, generation: record.generation }, more));
  const fetched = async (record) => {
    const text = await policyAt(record.generation, {}, { accept: "application/yaml" });
    save(`policy-${record.generation}.yaml`, new Blob([text], { type: "application/yaml" }));
  };
  return (
    <Panel title="Generations, the newest first">
      <Wrong error={error} />
      <Table label="Generations" id={(record) => record.generation} rows={rows} columns={[
        ["generation", (record) => record.generation, "number"],
        ["at", (record) => moment(record.at)],
        ["by", (record) => `${record.who} (${record.origin})`],
        ["state", (record) => <State of={record} />],
        ["what", (record) => <code>{what(record)}</code>, "wide"],
        ["disconnected", (record) => record.disconnected + record.disconnected_by_rejudging, "number"],
        ["published in", (record) => (record.publish_us === null ? "-" : `${record.publish_us} µs`), "number"],
        ["", (record) => (
          <span class="buttons">
            <button type="button" onClick={() => fetched(record)} aria-label={`Download the policy of generation ${record.generation}`}>Download</button>
            {mayWrite() && record.generation !== live.now.generation && <button type="button" onClick={() => back(record)} aria-label={`Go back to generation ${record.generation}`}>Go back…</button>}
          </span>
        )],
      ]} />
      <Pager {...pager} what="generations" />
    </Panel>
  );
}
