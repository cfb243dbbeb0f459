// A rule as a form.
import { useState } from "preact/hooks";
import { Field, options } from "./ui.jsx";

const PROTOCOLS = ["any", "tcp", "udp", "icmp", "icmpv6", "sctp", "gre", "esp", "ah", "ipip", "dccp", "udplite", "vrrp"];
const REMOTES = [["", "everyone"], ["remote", "a prefix or address"], ["remote_group", "a security group"], ["remote_address_group", "an address group"]];
const WITH_PORTS = new Set(["tcp", "udp", "sctp", "dccp", "udplite"]);
const number = (text) => (/^\d+$/.test(text) ? Number(text) : text);

/** What a document says of a rule, without what is left out there. */
function written(form) {
  const rule = { direction: form.direction };
  if (form.ethertype) rule.ethertype = form.ethertype;
  if (form.protocol && form.protocol !== "any") rule.protocol = number(form.protocol);
  if (WITH_PORTS.has(form.protocol) && form.ports) rule.ports = number(form.ports);
  if (form.protocol?.startsWith("icmp") && form.icmp_type !== "") rule.icmp_type = number(form.icmp_type);
  if (form.protocol?.startsWith("icmp") && form.icmp_code !== "") rule.icmp_code = number(form.icmp_code);
  if (form.kind) rule[form.kind] = form.remote;
  if (form.action === "deny") rule.action = "deny";
  if (form.priority !== "") rule.priority = number(form.priority);
  if (form.description) rule.description = form.description;
  if (form.staged) rule.staged = true;
  return rule;
}

function read(rule) {
  const kind = ["remote", "remote_group", "remote_address_group"].find((name) => rule[name] !== undefined) ?? "";
  const text = (name, without = "") => String(rule[name] ?? without);
  return {
    direction: text("direction", "inbound"), ethertype: text("ethertype"), protocol: text("protocol", "any"), ports: text("ports"), icmp_type: text("icmp_type"),
    icmp_code: text("icmp_code"), kind, remote: kind ? text(kind) : "", action: text("action", "allow"), priority: text("priority"),
    description: text("description"), staged: rule.staged === true,
  };
}

/** Edits a rule; `preview(rule)` is asked for what it would do. */
export function RuleForm({ rule, preview, cancel }) {
  const [form, set] = useState(() => read(rule));
  const on = (name) => ({ value: form[name], name, onInput: (event) => set({ ...form, [name]: event.currentTarget.value }) });
  const icmp = form.protocol.startsWith("icmp");
  return (
    <form class="fields" onSubmit={(event) => { event.preventDefault(); preview(written(form)); }}>
      <Field label="Direction" {...on("direction")}>{options(["inbound", "outbound"])}</Field>
      <Field label="Action" {...on("action")}>{options(["allow", "deny"])}</Field>
      <Field label="Protocol" list="protocols" {...on("protocol")} hint="a name or 0 to 255" />
      <datalist id="protocols">{PROTOCOLS.map((name) => <option value={name} />)}</datalist>
      {WITH_PORTS.has(form.protocol) && <Field label="Ports" {...on("ports")} hint="N or LOW-HIGH; all, if empty" />}
      {icmp && <Field label="ICMP type" {...on("icmp_type")} hint="0 to 255; all, if empty" />}
      {icmp && <Field label="ICMP code" {...on("icmp_code")} hint="beside a type" />}
      <Field label="Ethertype" {...on("ethertype")}>{options([["", "any that fits"], "IPv4", "IPv6"])}</Field>
      <Field label="Remote" {...on("kind")}>{options(REMOTES)}</Field>
      {form.kind && <Field label={REMOTES.find(([kind]) => kind === form.kind)[1].replace(/^an? /, "Remote ")} required {...on("remote")} />}
      <Field label="Priority" {...on("priority")} hint="1, the highest, to 100" />
      <Field label="Description" {...on("description")} />
      <label class="check"><input type="checkbox" checked={form.staged} onChange={(event) => set({ ...form, staged: event.currentTarget.checked })} /> staged: judged and told, not enforced</label>
      <p class="buttons"><button class="main">Preview</button><button type="button" onClick={cancel}>Cancel</button></p>
    </form>
  );
}
