// Requests to the appliance that serves this page, and to nobody else. The token goes into a header: no other site can have a browser
// send that, and no log or history of addresses holds it.
const KEY = "portcullis-token";

let over = () => {};
/** What is done when the appliance no longer takes the token, or wants one. */
export const whenOver = (act) => (over = act);

/** The token of this tab. It is gone with the tab. */
export const token = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

/** A refusal of the appliance's, or that it cannot be reached (status 0). */
export class Refusal extends Error {
  constructor(status, message, preview) {
    super(message);
    this.status = status;
    this.preview = preview;
  }
}

const text = (query) => {
  const set = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const written = new URLSearchParams(set.map(([name, value]) => [name, String(value)])).toString();
  return written && `?${written}`;
};

/** The answer itself, for those that go on. */
export async function open(method, path, query, { body, match, signal, accept = "application/json", kind = "application/json" } = {}) {
  const headers = { Accept: accept };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  if (body !== undefined) headers["Content-Type"] = kind;
  if (match !== undefined) headers["If-Match"] = `"${match}"`;
  const sent = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(path + text(query), { method, headers, body: sent, signal, credentials: "omit", cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The appliance does not answer.");
  }
  if (answer.ok || path === "/healthz") return answer;
  const told = await answer.json().catch(() => ({}));
  if (answer.status === 401) over();
  throw new Refusal(answer.status, told.error ?? `status ${answer.status}`, told.preview);
}

/** What it says: JSON as such, anything else as text. */
export async function ask(method, path, query, more) {
  const answer = await open(method, path, query, more);
  const is = answer.headers.get("content-type") ?? "";
  more?.heads?.(answer.headers);
  try {
    return is.startsWith("application/json") ? await answer.json() : await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The answer broke off.");
  }
}

/** The parts of an answer that goes on, between ends of lines (or of events). */
export async function* parts(answer, end) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const all = (left + value).split(end);
      left = all.pop();
      yield* all;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Has the browser save an answer as a file. */
export function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
