// Security groups: what their rules say, what they did, and their edit.
import { useState } from "preact/hooks";
import { addRule, deleteRule, deleteSecurityGroups, groups, rules, setRule, setSecurityGroups, showSecurityGroups } from "../api.js";
import { mayWrite, proposed } from "../change.jsx";
import { RuleForm } from "../rule.jsx";
import { Dialog, Field, Pager, Panel, Sign, Table, Wrong, useAsk, usePages, useSettled } from "../ui.jsx";
import { key, many, moment } from "../words.js";

const address = (name) => `#/groups/${encodeURIComponent(name)}`;

function All() {
  const [text, type] = useState("");
  const contains = useSettled(text);
  const [name, fill] = useState(null);
  const { rows, pager, error } = usePages((limit, after, more) => groups({ limit, after, contains }, more), (page) => page.at(-1).group, [contains]);
  const make = (event) => {
    event.preventDefault();
    const [project, own] = key(name);
    proposed(`Add the group ${name}`, (query, more) => setSecurityGroups(project, own, query, { ...more, body: { name: own, project, rules: [] } }), () => { location.hash = address(name); });
    fill(null);
  };
  return (
    <Panel title="Security groups" aside={mayWrite() && <button type="button" onClick={() => fill("")}>Add a group…</button>}>
      <form class="fields tight" onSubmit={(event) => event.preventDefault()}><Field label="Name contains" data-filter value={text} onInput={(event) => type(event.currentTarget.value)} /></form>
      <Wrong error={error} />
      <Table label="Security groups" id={(group) => group.group} rows={rows} empty={pager.busy ? "Asking…" : "None fits."} columns={[
        ["group", (group) => <a href={address(group.group)}>{group.group}</a>],
        ["inbound rules", (group) => group.inbound_rules, "number"],
        ["outbound rules", (group) => group.outbound_rules, "number"],
        ["NICs", (group) => group.nics.length, "number"],
        ["", (group) => <>{group.implied && <Sign kind="note">implied</Sign>} {group.staged && <Sign kind="note">staged</Sign>}</>],
        ["description", (group) => group.description, "wide"],
      ]} />
      <Pager {...pager} what="groups" />
      {name !== null && (
        <Dialog title="Add a group" close={() => fill(null)}>
          <form onSubmit={make}>
            <Field label="Name" required maxLength={255} value={name} onInput={(event) => fill(event.currentTarget.value)} hint="NAME, or PROJECT/NAME" />
            <p class="buttons"><button class="main">Preview</button><button type="button" onClick={() => fill(null)}>Cancel</button></p>
          </form>
        </Dialog>
      )}
    </Panel>
  );
}

function One({ name }) {
  const [project, own] = key(name);
  const [editing, edit] = useState(null);
  const { data, error, again } = useAsk(async (more) => {
    const [found, figures, document] = await Promise.all([
      groups({ contains: name, limit: 100_000 }, more), rules({ contains: name, limit: 100_000 }, more), showSecurityGroups(project, own, {}, more),
    ]);
    return { group: found.find((group) => group.group === name), figures: figures.filter((rule) => rule.group === name), document };
  }, [name]);
  if (error) return <Wrong error={error} />;
  if (!data?.group) return <p role="status">Asking…</p>;
  const { group, figures, document } = data;
  const written = document.rules ?? [];
  const may = mayWrite() && !group.implied;
  const preview = (rule) => {
    const { at } = editing;
    edit(null);
    if (at === null) proposed(`Add a rule to ${name}`, (query, more) => addRule(project, own, query, { ...more, body: rule }), again);
    else proposed(`Change ${name}#${at}`, (query, more) => setRule(project, own, figures[at].rule_id, query, { ...more, body: rule }), again);
  };
  const drop = (rule) => proposed(`Delete ${rule.rule}`, (query, more) => deleteRule(project, own, rule.rule_id, query, more), again);
  return (
    <>
      <p><a href="#/groups">All groups</a></p>
      <Panel title={name} aside={may && <><button type="button" onClick={() => edit({ at: null, rule: {} })}>Add a rule…</button><button type="button" onClick={() => proposed(`Delete the group ${name}`, (query, more) => deleteSecurityGroups(project, own, query, more), () => { location.hash = "#/groups"; })}>Delete the group…</button></>}>
        {group.description && <p>{group.description}</p>}
        {group.implied && <p><Sign kind="note">implied: no document defines it</Sign></p>}
        <Table label={`Rules of ${name}`} id={(rule) => rule.rule} rows={figures} empty="It has no rules: nothing may open a connection by it." columns={[
          ["rule", (rule) => rule.rule],
          ["says", (rule) => <>{rule.rule_text}{rule.staged && <> <Sign kind="note">staged</Sign></>}</>, "wide"],
          ["opened", (rule) => rule.connections, "number"],
          ["denied", (rule) => rule.denied, "number"],
          ["id", (rule) => <code>{rule.rule_id}</code>],
          ["description", (_, at) => written[at]?.description ?? "", "wide"],
          ...(may ? [["", (rule, at) => <span class="buttons"><button type="button" onClick={() => edit({ at, rule: written[at] })} aria-label={`Change ${rule.rule}`}>Change…</button><button type="button" onClick={() => drop(rule)} aria-label={`Delete ${rule.rule}`}>Delete…</button></span>]] : []),
        ]} />
        {figures[0]?.since && <p class="faint">Counted since {moment(figures[0].since)}.</p>}
      </Panel>
      <Panel title={many(group.nics.length, "NIC")}>
        <p>{group.nics.slice(0, 100).map((nic, at) => <>{at > 0 && ", "}<a href={`#/nics/${encodeURIComponent(nic)}`}>{nic}</a></>)}{group.nics.length > 100 && ` and ${group.nics.length - 100} more`}{!group.nics.length && "None is in it."}</p>
      </Panel>
      {editing && <Dialog title={editing.at === null ? `Add a rule to ${name}` : `Change ${name}#${editing.at}`} close={() => edit(null)}><RuleForm rule={editing.rule} preview={preview} cancel={() => edit(null)} /></Dialog>}
    </>
  );
}

export const Groups = ({ at }) => (at.rest.length ? <One key={at.rest.join("/")} name={at.rest.join("/")} /> : <All />);
