// The frame around every view: who and where, whether it is well, and the way from view to view.
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Awaited, Proposal } from "./change.jsx";
import { enter, signOut, useLive } from "./live.js";
import { Dialog, Sign } from "./ui.jsx";
import { Changes } from "./views/changes.jsx";
import { Connections } from "./views/connections.jsx";
import { Groups } from "./views/groups.jsx";
import { Nics } from "./views/nics.jsx";
import { Overview } from "./views/overview.jsx";
import { Packets } from "./views/packets.jsx";
import { PolicyView } from "./views/policy.jsx";
import { SignIn } from "./views/signin.jsx";
import { clock } from "./words.js";

const VIEWS = [
  ["overview", "Overview", "o", Overview],
  ["packets", "Packets", "p", Packets],
  ["connections", "Connections", "c", Connections],
  ["groups", "Groups", "g", Groups],
  ["nics", "NICs", "n", Nics],
  ["changes", "Changes", "h", Changes],
  ["policy", "Policy", "d", PolicyView],
];
const KEYS = [...VIEWS.map(([, name, letter]) => [`g ${letter}`, name]), ["/", "the first filter of a view"], ["?", "these keys"], ["Esc", "closes a dialog"]];

/** What the address says behind its #: a view, and what it is to show. Never a secret. */
function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/");
  return { view: view || "overview", rest: rest.map(decodeURIComponent), query: Object.fromEntries(new URLSearchParams(query ?? "")) };
}

function usePlace() {
  const [at, go] = useState(place);
  useEffect(() => {
    const moved = () => go(place());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return at;
}

function useKeys(help) {
  const first = useRef(false);
  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
      if (first.current) {
        first.current = false;
        const view = VIEWS.find(([, , letter]) => letter === event.key);
        if (view) location.hash = `#/${view[0]}`;
      } else if (event.key === "g") first.current = true;
      else if (event.key === "?") help(true);
      else if (event.key === "/") {
        const filter = document.querySelector("main [data-filter], main input");
        if (filter) event.preventDefault();
        filter?.focus();
      }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}

const STATUS = { ok: "ok", degraded: "warn", failed: "bad" };

function Head({ live, at }) {
  const { now, me, lost } = live;
  return (
    <header class="head">
      <a class="name" href="#/overview">Portcullis</a>
      <nav aria-label="Views">
        {VIEWS.map(([id, name]) => <a href={`#/${id}`} aria-current={at.view === id ? "page" : undefined}>{name}</a>)}
      </nav>
      <div class="state">
        {now && !lost && <a href="#/overview" class="status"><Sign kind={STATUS[now.status]}>{now.status}</Sign></a>}
        {now && <span>generation {now.generation}</span>}
        {me && <span class="me" title={me.who}>{me.who}{me.may === "read" && ", may only look"}</span>}
        {me?.token && <button type="button" class="quiet" onClick={() => signOut()}>Sign out</button>}
      </div>
    </header>
  );
}

function App() {
  const live = useLive();
  const at = usePlace();
  const [help, show] = useState(false);
  useKeys(show);
  const main = useRef();
  const [id, name, , View] = VIEWS.find(([view]) => view === at.view) ?? VIEWS[0];
  useEffect(() => { document.title = `${name} – Portcullis`; }, [name]);
  const moved = useRef(false);
  useEffect(() => {
    if (moved.current) main.current?.focus();
    moved.current = true;
  }, [at.view]);
  if (live.session !== "open") return <SignIn live={live} />;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); main.current.focus(); }}>To the content</a>
      <Head live={live} at={{ ...at, view: id }} />
      {live.lost && <p class="lost" role="alert"><Sign kind="bad">Not connected since {clock(live.lost)} UTC; trying again. What you see is of then.</Sign></p>}
      <Awaited />
      <main ref={main} id="main" tabIndex={-1} class={live.lost ? "stale" : ""}>
        <h1>{name}</h1>
        {live.now ? <View key={`${id} ${live.runs}`} live={live} at={at} /> : <p role="status">Asking the appliance…</p>}
      </main>
      <Proposal />
      {help && <Dialog title="Keys" close={() => show(false)}><dl class="keys">{KEYS.map(([key, does]) => <><dt><kbd>{key}</kbd></dt><dd>{does}</dd></>)}</dl></Dialog>}
      <footer><button type="button" class="quiet" onClick={() => show(true)}>Keys (?)</button><span>Portcullis {live.now?.version}; times are UTC</span></footer>
    </>
  );
}

const root = document.getElementById("app");
root.replaceChildren();
render(<App />, root);
enter();
