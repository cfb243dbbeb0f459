// Parts that views are made of.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

/** A sign with a word: never colour alone. `kind`: ok, note, warn, bad. */
export const Sign = ({ kind, children }) => (
  <span class={`sign ${kind}`}>
    <span aria-hidden="true">{{ ok: "✓", note: "·", warn: "!", bad: "✗" }[kind]}</span> {children}
  </span>
);

/** A verdict as it is told everywhere. */
export const Verdict = ({ of, observed }) => <Sign kind={of === "pass" ? "ok" : "warn"}>{observed ? "pass, observed" : of}</Sign>;

/** What went wrong, read out as soon as it is there. */
export const Wrong = ({ error }) => error && <p class="wrong" role="alert"><Sign kind="bad">{error.message ?? String(error)}</Sign></p>;

/** A region with a heading of its own. */
export const Panel = ({ title, aside, children, class: more = "" }) => (
  <section class={`panel ${more}`} aria-label={title}>
    <header><h2>{title}</h2>{aside && <div class="aside">{aside}</div>}</header>
    {children}
  </section>
);

/**
 * A table. `columns`: [name, cell(row), "number"|"text"|"wide"]; rows have a `key` by `id`. On a narrow screen it scrolls sideways within
 * its own frame, which the keyboard reaches.
 */
export function Table({ label, columns, rows, id, empty = "None.", mark }) {
  if (!rows.length) return <p class="empty">{empty}</p>;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={label}>
      <table>
        <caption class="unseen">{label}</caption>
        <thead><tr>{columns.map(([name, , kind]) => <th scope="col" class={kind}>{name || <span class="unseen">Actions</span>}</th>)}</tr></thead>
        <tbody>
          {rows.map((row, at) => (
            <tr key={id ? id(row, at) : at} class={mark?.(row) ?? ""}>
              {columns.map(([name, cell, kind], place) => (place === 0 ? <th scope="row" class={kind}>{cell(row, at)}</th> : <td class={kind} data-name={name}>{cell(row, at)}</td>))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** A dialog that keeps the keyboard within it and closes by Escape. */
export function Dialog({ title, close, children, wide }) {
  const box = useRef();
  useEffect(() => {
    const before = document.activeElement;
    if (!box.current.open) box.current.showModal();
    return () => before?.focus?.();
  }, []);
  return (
    <dialog ref={box} class={wide ? "wide" : ""} aria-label={title} onCancel={(event) => { event.preventDefault(); close(); }}>
      <header><h2>{title}</h2><button type="button" class="quiet" onClick={close}>Close</button></header>
      {children}
    </dialog>
  );
}

let fields = 0;
/** A labelled control. */
export function Field({ label, hint, children, ...more }) {
  const id = useRef(`field-${(fields += 1)}`).current;
  const shared = { id, "aria-describedby": hint ? `${id}-hint` : undefined, ...more };
  const control = children ? <select {...shared}>{children}</select> : more.rows ? <textarea {...shared} /> : <input autocomplete="off" spellcheck={false} {...shared} />;
  return <div class={`field ${more.rows ? "tall" : ""}`}><label for={id}>{label}</label>{control}{hint && <small id={`${id}-hint`}>{hint}</small>}</div>;
}

/** A choice as options. */
export const options = (all) => all.map((one) => (Array.isArray(one) ? <option value={one[0]}>{one[1]}</option> : <option value={one}>{one || "any"}</option>));

/** Asks, and draws when there is an answer. `ask` gets a signal; asked again when one of `on` is another. */
export function useAsk(ask, on) {
  const [state, set] = useState({ data: null, error: null, busy: true });
  const turn = useRef(0);
  const again = useCallback(() => {
    const mine = (turn.current += 1);
    const abort = new AbortController();
    set((was) => ({ ...was, busy: true }));
    ask({ signal: abort.signal }).then(
      (data) => mine === turn.current && set({ data, error: null, busy: false }),
      (error) => mine === turn.current && error.name !== "AbortError" && set((was) => ({ ...was, error, busy: false })),
    );
    return () => abort.abort();
  }, on);
  useEffect(again, on);
  return { ...state, again };
}

/** A listing page by page. `ask(limit, after)`; `last(rows)` is what the next page is behind. */
export function usePages(ask, last, on, limit = 100) {
  const [behind, go] = useState([]);
  const held = useRef(on);
  const same = held.current.every((one, at) => one === on[at]);
  if (!same) held.current = on;
  const place = same ? behind : [];
  useEffect(() => { if (!same) go([]); });
  const asked = useAsk((more) => ask(limit + 1, place[place.length - 1], more), [...on, place.join("\n")]);
  const all = asked.data ?? [];
  const rows = all.slice(0, limit);
  const pager = {
    page: place.length + 1,
    busy: asked.busy,
    previous: place.length ? () => go(place.slice(0, -1)) : null,
    next: all.length > limit ? () => go([...place, last(rows)]) : null,
  };
  return { ...asked, rows, pager };
}

/** To the page before and the next. */
export const Pager = ({ page, previous, next, busy, what }) => (
  <nav class="pager" aria-label={`Pages of ${what}`} aria-busy={busy}>
    <button type="button" disabled={!previous} onClick={previous}>Previous page</button>
    <span role="status">{busy ? "Asking…" : `Page ${page}${next ? "" : ", the last"}`}</span>
    <button type="button" disabled={!next} onClick={next}>Next page</button>
  </nav>
);

/** A text that is taken when nothing more was typed for a moment. */
export function useSettled(text, wait = 200) {
  const [settled, settle] = useState(text);
  useEffect(() => {
    const timer = setTimeout(() => settle(text), wait);
    return () => clearTimeout(timer);
  }, [text]);
  return settled;
}
