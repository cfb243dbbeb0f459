// What people do with the console.
import { strict as assert } from "node:assert";
import { readFile, writeFile } from "node:fs/promises";
import { Appliance, READER, WRITER, accessible, page as opened, picture, test, until, view, wire } from "./harness.mjs";

const policyOf = async (appliance) => (await appliance.ask("/v1/policy")).body;
const generation = async (appliance) => (await appliance.ask("/v1/snapshot")).body.generation;
let cables;
let shop;
const ready = async () => {
  cables ??= await wire("pc");
  shop ??= await Appliance.start({ vdevs: cables.vdevs, conntrack: "count = true" });
  return shop;
};

test("a wrong token is refused, a right one opens the page and stays out of sight", async () => {
  const appliance = await ready();
  const page = await opened(appliance);
  const token = page.getByLabel("Token");
  await token.fill("no-such-token-0123456789");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("The appliance does not know this token.").waitFor();
  await accessible(page, "sign-in");
  await picture(page, "sign-in");
  await token.fill(WRITER);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
  await page.getByText("anna").waitFor();
  const kept = await page.evaluate(() => ({ cookies: document.cookie, local: JSON.stringify(localStorage), url: location.href, page: document.documentElement.outerHTML }));
  assert.equal(kept.cookies, "");
  for (const text of Object.values(kept)) assert(!text.includes(WRITER));
  assert.deepEqual(await page.context().cookies(), []);
  assert(!appliance.log.includes(WRITER), "the token is in the log");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Token").waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.getItem("portcullis-token")), null);
});

test("who may only look is shown everything and changes nothing", async () => {
  const appliance = await ready();
  const before = await generation(appliance);
  const page = await opened(appliance, { token: READER });
  await page.getByText("rob, may only look").waitFor();
  for (const name of ["Overview", "Packets", "Connections", "Groups", "NICs", "Changes", "Policy"]) {
    await view(page, name);
    for (const button of ["Undo…", "Flush these…", "Add a group…", "Go back…", "Capture to a file", "Preview"]) assert.equal(await page.getByRole("button", { name: button, exact: true }).count(), 0, `${name}: ${button}`);
  }
  const refused = [
    await appliance.ask("/v1/rollback?generation=0", { token: READER, method: "POST" }),
    await appliance.ask("/v1/connections/flush?all=true", { token: READER, method: "POST" }),
    await appliance.ask("/v1/security-groups/default/web", { token: READER, method: "DELETE" }),
    await appliance.ask("/v1/capture?seconds=1", { token: READER }),
  ];
  for (const { status, body } of refused) {
    assert.equal(status, 403);
    assert.match(body.error, /the token of rob may only look/);
  }
  assert.equal(await generation(appliance), before);
  const asked = await appliance.ask("/v1/explain", { token: READER, method: "POST", body: JSON.stringify({ nic: "web-1", description: "inbound tcp 203.0.113.9:1 > 10.5.6.7:3306" }), headers: { "Content-Type": "application/json" } });
  assert.equal(asked.body.verdict, "drop");
});

test("the first screen says whether it is well, what goes through and what changed last", async () => {
  const appliance = await ready();
  for (const dark of [false, true]) {
    const page = await opened(appliance, { token: WRITER, dark });
    const health = page.getByRole("region", { name: "Health" });
    await health.getByText("All is well.").waitFor();
    const drops = page.getByRole("region", { name: "Drops", exact: true });
    await drops.getByRole("link", { name: "no-rule" }).waitFor();
    const traffic = page.getByRole("region", { name: "Traffic" });
    await until("something passes by the second", async () => parseFloat((await traffic.locator(".figures b").nth(1).textContent()) ?? "") > 10);
    await page.getByRole("region", { name: "Last change" }).getByText("generation 1").waitFor();
    // As `show counters` says.
    const told = (await appliance.ask("/v1/counters")).body;
    assert(told.reasons["no-rule"] > 0);
    await page.getByRole("img", { name: /Packets by the second: now pass \d+\/s, drop \d/ }).waitFor();
    await page.waitForTimeout(3000);
    await accessible(page, `overview, ${dark ? "dark" : "light"}`);
    await picture(page, `overview-${dark ? "dark" : "light"}`, { full: true });
  }
});

test("from a drop to the rule that would let it pass in two clicks; it lapses, is made again, confirmed and undone", async () => {
  const appliance = await ready();
  await until("connections live", async () => (await appliance.ask("/v1/connections/count?tombstone=false&nic=web-1")).body.count === 8, 30_000);
  const page = await opened(appliance, { token: WRITER });
  await page.getByRole("region", { name: "Drops", exact: true }).getByRole("link", { name: "no-rule" }).click();
  const packets = page.getByRole("region", { name: "Packets", exact: true });
  const row = packets.getByRole("row").filter({ hasText: "3306" }).first();
  await row.waitFor();
  await page.getByRole("button", { name: "Stop" }).click();
  await accessible(page, "packets");
  const before = await generation(appliance);
  const add = async (seconds) => {
    await row.getByRole("button", { name: "Why?" }).click(); // One.
    const why = page.getByRole("region", { name: "Why" });
    await why.getByText("no inbound rule of web-1's groups matches it").waitFor();
    await why.getByText("allow inbound tcp 3306 from 203.0.113.9/32").waitFor();
    await picture(page, "why-light", { full: false });
    await page.getByRole("button", { name: "Preview adding it" }).click(); // Two.
    const dialog = page.getByRole("dialog");
    await dialog.getByText("allow inbound IPv4 tcp 3306 from 203.0.113.9").or(dialog.getByText(/allow inbound.*3306.*203\.0\.113\.9/)).first().waitFor();
    // Exact: every connection of the group's NIC that lives, by its ends.
    await dialog.getByText(/disconnects 8 connections/).waitFor();
    assert.equal(await dialog.getByRole("row").count(), 9);
    assert.equal(await generation(appliance), before, "a preview changes nothing");
    await accessible(page, "preview");
    await picture(page, "preview-light");
    await dialog.getByLabel("Seconds to confirm within").fill(String(seconds));
    await dialog.getByRole("button", { name: "Apply" }).click();
    await dialog.getByText(/: unconfirmed/).waitFor();
    await picture(page, "receipt-light");
    await dialog.getByRole("button", { name: "Done" }).click();
  };
  await add(3);
  const awaited = page.getByRole("region", { name: "A change awaits its confirmation" });
  await awaited.getByText(/goes back to 1 in/).waitFor();
  assert.match(await policyOf(appliance), /3306/);
  await awaited.waitFor({ state: "detached", timeout: 8000 });
  assert.doesNotMatch(await policyOf(appliance), /3306/, "it lapsed");
  await view(page, "Changes");
  await page.getByRole("row").filter({ hasText: "taken back" }).first().waitFor();

  await page.goBack();
  await row.or(page.getByRole("row").filter({ hasText: "3306" }).first()).first().waitFor();
  // Traffic opened its connections again meanwhile.
  await until("connections live again", async () => (await appliance.ask("/v1/connections/count?tombstone=false&nic=web-1")).body.count === 8, 30_000);
  const now = await generation(appliance);
  await page.getByRole("button", { name: "Stop" }).click();
  await row.getByRole("button", { name: "Why?" }).click();
  await page.getByRole("button", { name: "Preview adding it" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText(/disconnects 8 connections/).waitFor();
  await dialog.getByRole("button", { name: "Apply" }).click();
  await dialog.getByText(/: unconfirmed/).waitFor();
  await dialog.getByRole("button", { name: "Done" }).click();
  await awaited.getByText(/in (1 min|\d+ s)/).waitFor();
  await accessible(page, "awaiting");
  await picture(page, "countdown-light");
  await awaited.getByRole("button", { name: "Confirm" }).click();
  await awaited.waitFor({ state: "detached" });
  assert.equal(await generation(appliance), now + 1);
  const history = (await appliance.ask("/v1/history")).body;
  assert.deepEqual([history[0].confirmation, history[0].who], ["confirmed", "anna"]);

  await view(page, "Overview");
  const last = page.getByRole("region", { name: "Last change" });
  await last.getByText(`generation ${now + 1}`).waitFor();
  await last.getByRole("button", { name: "Undo…" }).click();
  const undone = page.getByRole("dialog");
  await undone.getByText("gone:").waitFor({ state: "attached" });
  await undone.getByRole("checkbox").uncheck();
  await undone.getByRole("button", { name: "Apply" }).click();
  await undone.getByText(/: acknowledged/).waitFor();
  assert.doesNotMatch(await policyOf(appliance), /3306/);
});

test("a change that somebody else made meanwhile is not overwritten", async () => {
  const appliance = await ready();
  const page = await opened(appliance, { token: WRITER, path: "#/groups/db" });
  await page.getByRole("button", { name: "Delete db#0" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText(/disconnects 0 connections/).waitFor();
  const other = await appliance.ask("/v1/security-groups/default/db/rules", { method: "POST", body: JSON.stringify({ direction: "inbound", protocol: "tcp", ports: 5433 }), headers: { "Content-Type": "application/json" } });
  assert.equal(other.status, 200);
  await dialog.getByRole("button", { name: "Apply" }).click();
  await dialog.getByRole("alert").waitFor();
  await dialog.getByRole("button", { name: "Preview again" }).click();
  await dialog.getByRole("button", { name: "Preview again" }).waitFor({ state: "detached" });
  await dialog.getByRole("checkbox").uncheck();
  await dialog.getByRole("button", { name: "Apply" }).click();
  await dialog.getByText(/: acknowledged/).waitFor();
});

test("connections are filtered, one is flushed, and its tombstone is found with its time", async () => {
  const appliance = await ready();
  const page = await opened(appliance, { token: WRITER, path: "#/connections" });
  const table = page.getByRole("region", { name: "Connections", exact: true });
  await until("connections live", async () => (await appliance.ask("/v1/connections/count?tombstone=false&nic=web-1")).body.count === 8, 30_000);
  await page.getByRole("button", { name: "Look again" }).click();
  await table.getByRole("row").filter({ hasText: "198.51.100.3:40003" }).first().waitFor();
  await page.getByLabel("Remote", { exact: true }).fill("198.51.100.3");
  await page.getByLabel("Kind").selectOption("false");
  await until("one row", async () => (await table.getByRole("row").count()) === 2);
  await accessible(page, "connections");
  const row = table.getByRole("row").filter({ hasText: "198.51.100.3:40003" });
  assert.match(await row.textContent(), /established/);
  await row.getByRole("button", { name: "Flush…" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("1 live connection now").waitFor();
  await dialog.getByRole("button", { name: "Flush", exact: true }).click();
  await dialog.getByText("disconnected 1 connection").waitFor();
  await dialog.getByRole("button", { name: "Done" }).click();
  await page.getByLabel("Kind").selectOption("true");
  const grave = table.getByRole("row").filter({ hasText: "tombstone" });
  await grave.waitFor();
  assert.match(await grave.textContent(), /\d+ (s|min \d\d s)/);
  await page.getByRole("button", { name: "Count them" }).click();
  await page.getByText("1 connection", { exact: true }).waitFor();
  // What happened to it, by its row.
  await grave.getByRole("link", { name: "Why?" }).click();
  await page.getByText(/a tombstone: its ends may open another in \d+ s/).waitFor();
  await view(page, "Connections");
  await page.getByLabel("NIC", { exact: true }).fill("web-2");
  await page.getByRole("alert").getByText(/web-1/).waitFor();
  await page.getByLabel("NIC", { exact: true }).fill("");
  await table.getByRole("row").filter({ hasText: "198.51.100.1" }).first().waitFor();
  await picture(page, "connections-light");
});

test("packets are watched by filters, and captures and policies are files", async () => {
  const appliance = await ready();
  const page = await opened(appliance, { token: WRITER, path: "#/packets" });
  await page.getByLabel("Port", { exact: true }).fill("23");
  await page.getByLabel("Verdict").selectOption("drop");
  await page.getByRole("button", { name: "Watch" }).click();
  const packets = page.getByRole("region", { name: "Packets", exact: true });
  await packets.getByRole("row").filter({ hasText: "203.0.113.10" }).first().waitFor();
  const rows = await packets.getByRole("row").allTextContents();
  assert(rows.slice(1).every((row) => row.includes(":23")), rows.join("\n"));
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByLabel("Seconds", { exact: true }).fill("1");
  const [capture] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Capture to a file" }).click()]);
  const bytes = await readFile(await capture.path());
  assert.equal(bytes.readUInt32LE(0), 0x0a0d0d0a, "no pcapng");
  assert(bytes.length > 2000, `${bytes.length} bytes`);
  await view(page, "Policy");
  const [policy] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download" }).click()]);
  assert.equal(await readFile(await policy.path(), "utf8"), await policyOf(appliance));
  assert.match(policy.suggestedFilename(), /^policy-\d+\.yaml$/);
});

test("groups, rules, NICs and the document are edited, each by its preview", async () => {
  const appliance = await ready();
  const page = await opened(appliance, { token: WRITER, path: "#/groups" });
  const dialog = page.getByRole("dialog");
  const apply = async () => {
    await dialog.getByRole("checkbox").uncheck();
    await dialog.getByRole("button", { name: "Apply" }).click();
    await dialog.getByText(/: acknowledged/).waitFor();
    await dialog.getByRole("button", { name: "Done" }).click();
  };
  await accessible(page, "groups");
  await page.getByRole("button", { name: "Add a group…" }).click();
  await dialog.getByLabel("Name", { exact: true }).fill("cache");
  await dialog.getByRole("button", { name: "Preview" }).click();
  await dialog.getByText("cache").first().waitFor();
  await apply();
  await page.getByRole("button", { name: "Add a rule…" }).click();
  await dialog.getByLabel("Protocol").fill("tcp");
  await dialog.getByLabel("Ports").fill("99999");
  await accessible(page, "rule");
  await dialog.getByRole("button", { name: "Preview" }).click();
  await dialog.getByRole("alert").getByText(/99999/).waitFor();
  await dialog.getByRole("button", { name: "Close" }).click();
  await page.getByRole("button", { name: "Add a rule…" }).click();
  await dialog.getByLabel("Protocol").fill("tcp");
  await dialog.getByLabel("Ports").fill("11211");
  await dialog.getByLabel("Remote", { exact: true }).selectOption("remote_group");
  await dialog.getByLabel("Remote security group").fill("web");
  await dialog.getByLabel("Description").fill("the shop's servers");
  await picture(page, "rule-light");
  await dialog.getByRole("button", { name: "Preview" }).click();
  await dialog.getByText(/11211/).first().waitFor();
  await apply();
  const rule = page.getByRole("row").filter({ hasText: "11211" });
  await rule.getByText("the shop's servers").waitFor();
  assert.match(await rule.textContent(), /r-[0-9a-f]{10}/);
  await page.goto(`${appliance.url}/console/#/nics/db-1`);
  await page.getByRole("button", { name: "Change…" }).click();
  await dialog.getByLabel("Security groups").fill("db, cache");
  await dialog.getByRole("button", { name: "Preview" }).click();
  await apply();
  await page.getByRole("link", { name: "cache" }).waitFor();
  await accessible(page, "nic");
  await view(page, "Policy");
  const document = page.getByRole("textbox", { name: "Document" });
  await until("the document", async () => (await document.inputValue()).includes("cache"));
  await document.fill((await document.inputValue()).replace("11211", "11212"));
  await page.getByRole("button", { name: "Preview" }).click();
  await dialog.getByText(/11212/).first().waitFor();
  await apply();
  await document.fill("vpcs: 5\n");
  await page.getByRole("button", { name: "Preview" }).click();
  await dialog.getByRole("alert").getByText(/console:1:7/).waitFor();
  await dialog.getByRole("button", { name: "Close" }).click();
  await page.goto(`${appliance.url}/console/#/groups/web`);
  await page.getByRole("row").filter({ hasText: "web#0" }).waitFor();
  await until("hits", async () => /[1-9]/.test(await page.getByRole("row").filter({ hasText: "web#0" }).locator("td").nth(1).textContent()));
  await accessible(page, "group");
  await picture(page, "group-light");
});

test("what is wrong is told with its cure, and that it is over", async () => {
  const appliance = await ready();
  const page = await opened(appliance, { token: WRITER });
  await page.getByText("All is well.").waitFor();
  await cables.link("out", "down");
  const health = page.getByRole("region", { name: "Health" });
  await health.getByText("degraded").waitFor({ timeout: 15_000 });
  const [problem] = (await appliance.ask("/healthz", { token: WRITER })).body.problems.filter((problem) => !problem.ended);
  await health.getByText(problem.problem).waitFor();
  await health.getByText(problem.cure).waitFor();
  await accessible(page, "degraded");
  await picture(page, "degraded-light");
  await cables.link("out", "up");
  await health.getByText("All is well.").waitFor({ timeout: 15_000 });
  await health.getByText(/over since/).first().waitFor();
});

test("an appliance that is restarted under an open page is met again, a session that is over is said to be", async () => {
  const appliance = await ready();
  const page = await opened(appliance, { token: WRITER, path: "#/nics" });
  await page.getByRole("link", { name: "web-1" }).waitFor();
  await appliance.stop("SIGKILL");
  await page.getByText(/Not connected since \d\d:\d\d:\d\d UTC/).waitFor();
  await page.getByRole("link", { name: "web-1" }).waitFor();
  await accessible(page, "not connected");
  await picture(page, "lost-light");
  await appliance.run();
  await page.getByText(/Not connected since/).waitFor({ state: "detached" });
  await page.getByText("All is well.").or(page.getByRole("link", { name: "web-1" })).first().waitFor();
  await writeFile(appliance.file("tokens"), `rob ${READER} read\n`, { mode: 0o600 });
  appliance.process.kill("SIGHUP");
  await until("the token is gone", async () => (await appliance.ask("/v1/whoami")).status === 401);
  await view(page, "Groups").catch(() => {});
  await page.getByText("The session is over: the appliance no longer takes this token.").waitFor();
  assert.equal(await page.getByRole("table").count(), 0, "nothing of what was shown stays");
});

test("by the keyboard alone, from the token to a new rule", async () => {
  const appliance = await Appliance.start();
  const page = await opened(appliance);
  const key = page.keyboard;
  await page.getByLabel("Token").waitFor();
  await key.type(WRITER);
  await key.press("Enter");
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
  await key.press("?");
  await page.getByRole("dialog", { name: "Keys" }).waitFor();
  await key.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await key.press("g");
  await key.press("g");
  await page.getByRole("heading", { level: 1, name: "Groups" }).waitFor();
  const focused = () => page.evaluate(() => document.activeElement?.ariaLabel || document.activeElement?.textContent?.trim() || document.activeElement?.labels?.[0]?.textContent || document.activeElement?.tagName);
  const to = async (what) => {
    for (let at = 0; at < 60; at += 1) {
      if (new RegExp(what).test(await focused())) return;
      await key.press("Tab");
    }
    assert.fail(`${what} is not reached; ${await focused()} is`);
  };
  await page.getByRole("link", { name: "web", exact: true }).waitFor();
  await key.press("/");
  assert.equal(await focused(), "Name contains");
  await key.type("we");
  await to("^web$");
  await key.press("Enter");
  await page.getByRole("button", { name: "Add a rule…" }).waitFor();
  await to("^Add a rule");
  await key.press("Enter");
  await page.getByRole("dialog").waitFor();
  await to("^Protocol$");
  await page.keyboard.press("Control+A");
  await key.type("tcp");
  await to("^Ports$");
  await key.type("8443");
  await key.press("Enter");
  await page.getByText(/allow.*8443/).first().waitFor();
  await to("^Apply$");
  await key.press("Enter");
  await page.getByText(/: unconfirmed/).waitFor();
  await to("^Done$");
  await key.press("Enter");
  await page.getByRole("region", { name: "A change awaits its confirmation" }).waitFor();
  await to("^Confirm$");
  await key.press("Enter");
  await page.getByRole("region", { name: "A change awaits its confirmation" }).waitFor({ state: "detached" });
  assert.match(await policyOf(appliance), /8443/);
  await appliance.end();
});

test("every view fits a telephone, and is of use to who cannot see it", async () => {
  const appliance = await ready();
  await writeFile(appliance.file("tokens"), `anna ${WRITER}\nrob ${READER} read\n`, { mode: 0o600 });
  appliance.process.kill("SIGHUP");
  await until("the token is back", async () => (await appliance.ask("/v1/whoami")).status === 200);
  const page = await opened(appliance, { token: WRITER, width: 390, height: 844, dark: true });
  for (const name of ["Overview", "Packets", "Connections", "Groups", "NICs", "Changes", "Policy"]) {
    await view(page, name);
    await page.waitForTimeout(400);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert(wide <= 390, `${name} is ${wide} wide`);
    await accessible(page, `${name}, phone, dark`);
    await picture(page, `${name.toLowerCase()}-phone-dark`);
  }
  await page.goto(`${appliance.url}/console/#/groups/web`);
  await page.getByRole("row").filter({ hasText: "web#0" }).waitFor();
  assert((await page.evaluate(() => document.documentElement.scrollWidth)) <= 390);
  await picture(page, "group-phone-dark");
  cables.end();
  await appliance.end();
});
