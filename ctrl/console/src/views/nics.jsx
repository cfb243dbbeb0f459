// NICs: what they are, what they carry, and their edit.
import { useState } from "preact/hooks";
import { deleteNics, nics, setNics, showNics } from "../api.js";
import { mayWrite, proposed } from "../change.jsx";
import { Dialog, Field, Pager, Panel, Sign, Table, Wrong, options, useAsk, usePages, useSettled } from "../ui.jsx";
import { key } from "../words.js";

const address = (name) => `#/nics/${encodeURIComponent(name)}`;
const group = (name, project) => (project === "default" || name.includes("/") ? name : `${project}/${name}`);

function All() {
  const [text, type] = useState("");
  const contains = useSettled(text);
  const { rows, pager, error } = usePages((limit, after, more) => nics({ limit, after, contains }, more), (page) => page.at(-1).nic, [contains]);
  return (
    <Panel title="NICs by name">
      <form class="fields tight" onSubmit={(event) => event.preventDefault()}><Field label="Name or address contains" data-filter value={text} onInput={(event) => type(event.currentTarget.value)} /></form>
      <Wrong error={error} />
      <Table label="NICs" id={(nic) => nic.nic} rows={rows} empty={pager.busy ? "Asking…" : "None fits."} columns={[
        ["NIC", (nic) => <a href={address(nic.nic)}>{nic.nic}</a>],
        ["VPC", (nic) => nic.vpc],
        ["addresses", (nic) => nic.addresses.join(", "), "wide"],
        ["groups", (nic) => nic.security_groups.join(", ") || "none", "wide"],
        ["mode", (nic) => (nic.mode === "observe" ? <Sign kind="warn">observe</Sign> : nic.mode)],
        ["connections", (nic) => nic.connections, "number"],
        ["packets", (nic) => nic.inbound.in + nic.outbound.in, "number"],
        ["drops", (nic) => nic.inbound.drop + nic.outbound.drop, "number"],
      ]} />
      <Pager {...pager} what="NICs" />
    </Panel>
  );
}

function Edit({ document, close, preview }) {
  const [form, set] = useState({
    security_groups: (document.security_groups ?? ["default"]).join(", "), mode: document.mode ?? "", max_connections: String(document.max_connections ?? ""), description: document.description ?? "",
  });
  const on = (name) => ({ value: form[name], name, onInput: (event) => set({ ...form, [name]: event.currentTarget.value }) });
  const submit = (event) => {
    event.preventDefault();
    const next = { ...document, security_groups: form.security_groups.split(",").map((name) => name.trim()).filter(Boolean) };
    for (const name of ["mode", "max_connections", "description"]) delete next[name];
    if (form.mode) next.mode = form.mode;
    if (form.max_connections) next.max_connections = Number(form.max_connections);
    if (form.description) next.description = form.description;
    preview(next);
  };
  return (
    <Dialog title={`Change ${document.name}`} close={close}>
      <form class="fields" onSubmit={submit}>
        <Field label="Security groups" {...on("security_groups")} hint="with commas between; empty is none" />
        <Field label="Mode" {...on("mode")}>{options([["", "as configured"], "enforce", "observe"])}</Field>
        <Field label="Connections at most" type="number" min="1" {...on("max_connections")} hint="no limit, if empty" />
        <Field label="Description" {...on("description")} />
        <p class="buttons"><button class="main">Preview</button><button type="button" onClick={close}>Cancel</button></p>
      </form>
    </Dialog>
  );
}

function One({ name }) {
  const [project, own] = key(name);
  const [editing, edit] = useState(false);
  const { data, error, again } = useAsk(async (more) => {
    const [found, document] = await Promise.all([nics({ contains: name, limit: 100_000 }, more), showNics(project, own, {}, more)]);
    return { nic: found.find((nic) => nic.nic === name), document };
  }, [name]);
  if (error) return <Wrong error={error} />;
  if (!data?.nic) return <p role="status">Asking…</p>;
  const { nic, document } = data;
  const figures = ["in", "pass", "drop"].map((what) => ({ what, inbound: nic.inbound[what], outbound: nic.outbound[what], inbytes: nic.inbound_bytes[what], outbytes: nic.outbound_bytes[what] }));
  return (
    <>
      <p><a href="#/nics">All NICs</a></p>
      <Panel title={name} aside={<>
        <a href={`#/connections?${new URLSearchParams({ nic: name })}`}>Its connections</a>
        <a href={`#/packets?${new URLSearchParams({ nic: name, verdict: "drop" })}`}>Its drops</a>
        {mayWrite() && <button type="button" onClick={() => edit(true)}>Change…</button>}
        {mayWrite() && <button type="button" onClick={() => proposed(`Delete the NIC ${name}`, (query, more) => deleteNics(project, own, query, more), () => { location.hash = "#/nics"; })}>Delete…</button>}
      </>}>
        {document.description && <p>{document.description}</p>}
        <dl class="facts">
          <dt>VPC</dt><dd>{nic.vpc}</dd>
          <dt>MAC</dt><dd>{nic.mac ?? "any"}</dd>
          <dt>Addresses</dt><dd>{nic.addresses.join(", ") || "none"}</dd>
          <dt>Allowed addresses</dt><dd>{nic.allowed_addresses.join(", ") || "none"}</dd>
          <dt>Groups</dt><dd>{nic.security_groups.map((one, at) => <>{at > 0 && ", "}<a href={`#/groups/${encodeURIComponent(group(one, project))}`}>{one}</a></>)}{!nic.security_groups.length && "none: nothing may open a connection"}</dd>
          <dt>Mode</dt><dd>{nic.mode === "observe" ? <Sign kind="warn">observe: what would drop passes</Sign> : nic.mode}</dd>
          <dt>Connections</dt><dd>{nic.connections}{nic.max_connections !== null && ` of ${nic.max_connections}`}; {nic.live_inbound} live inbound ones would end at a flush</dd>
          <dt>Flushed at</dt><dd>generation {nic.flushed_at}</dd>
        </dl>
        <Table label="What it carried" id={(row) => row.what} rows={figures} columns={[
          ["packets", (row) => row.what], ["inbound", (row) => row.inbound, "number"], ["outbound", (row) => row.outbound, "number"],
          ["inbound bytes", (row) => row.inbytes, "number"], ["outbound bytes", (row) => row.outbytes, "number"],
        ]} />
      </Panel>
      {editing && <Edit document={document} close={() => edit(false)} preview={(next) => { edit(false); proposed(`Change the NIC ${name}`, (query, more) => setNics(project, own, query, { ...more, body: next }), again); }} />}
    </>
  );
}

export const Nics = ({ at }) => (at.rest.length ? <One key={at.rest.join("/")} name={at.rest.join("/")} /> : <All />);
