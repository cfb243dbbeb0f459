// The whole policy as a document: to download, and to edit where no form reaches.
import { useState } from "preact/hooks";
import { apply, policy } from "../api.js";
import { mayWrite, proposed } from "../change.jsx";
import { save } from "../transport.js";
import { Field, Panel, Wrong, useAsk } from "../ui.jsx";
import { many } from "../words.js";

/** Longer documents are edited elsewhere: a text field of a browser's is not made for them. */
const LONGEST = 2_000_000;

export function PolicyView({ live }) {
  const { data, error, busy, again } = useAsk((more) => policy({}, { ...more, accept: "application/yaml" }), [live.now.generation]);
  const [text, type] = useState(null);
  const own = text ?? data ?? "";
  const load = async (event) => { const [file] = event.currentTarget.files; if (file) type(await file.text()); };
  const show = (event) => {
    event.preventDefault();
    proposed("Make this document the policy", (query, more) => apply({ ...query, file: "console" }, { ...more, body: own, kind: "application/yaml" }), () => { type(null); again(); });
  };
  return (
    <Panel title="The policy as a document" aside={<><span>{many(live.now.groups, "group")}, {many(live.now.nics, "NIC")}</span><button type="button" disabled={!data} onClick={() => save(`policy-${live.now.generation}.yaml`, new Blob([data], { type: "application/yaml" }))}>Download</button></>}>
      <Wrong error={error} />
      {busy && !data && <p role="status">Asking…</p>}
      {data !== null && (own.length > LONGEST ? <p>It has {own.length} characters: download it, and apply it by <code>portcullis apply</code>.</p> : (
        <form onSubmit={show}>
          <Field label="Document" rows="28" readOnly={!mayWrite()} value={own} onInput={(event) => type(event.currentTarget.value)} />
          {mayWrite() && (
            <p class="buttons">
              <button class="main" disabled={text === null || text === data}>Preview</button>
              <button type="button" disabled={text === null} onClick={() => type(null)}>As it is in force</button>
              <label class="inline">Take a file <input type="file" accept=".yaml,.yml,.json" onChange={load} /></label>
            </p>
          )}
        </form>
      ))}
    </Panel>
  );
}
