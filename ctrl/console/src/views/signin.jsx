// Who comes without a token is asked for it.
import { useState } from "preact/hooks";
import { signIn } from "../live.js";
import { Sign } from "../ui.jsx";

export function SignIn({ live }) {
  const [text, set] = useState("");
  const enter = (event) => {
    event.preventDefault();
    signIn(text.trim()).then(() => set(""));
  };
  return (
    <main class="signin">
      <h1>Portcullis</h1>
      {live.lost && live.session === "asking" ? <p role="status">The appliance does not answer; trying again.</p> : null}
      {live.session === "signed-out" && (
        <form onSubmit={enter}>
          {live.told && <p role="alert"><Sign kind="warn">{live.told}</Sign></p>}
          <label for="token">Token</label>
          <input id="token" type="password" autocomplete="current-password" required minLength={16} value={text} onInput={(event) => set(event.currentTarget.value)} aria-describedby="token-hint" autofocus />
          <small id="token-hint">From the file that <code>[api] token_file</code> names. It stays in this tab and goes with it.</small>
          <button class="main">Sign in</button>
        </form>
      )}
    </main>
  );
}
