// What the tests of the console share: appliances, a browser, and what must hold of every page.
import { spawn } from "node:child_process";
import { strict as assert } from "node:assert";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../../..");
const MODULES = join(ROOT, "target/tools/console/node_modules");
const { chromium } = (await import(pathToFileURL(join(MODULES, "playwright-core/index.js")).href)).default;
const AXE = readFileSync(join(MODULES, "axe-core/axe.min.js"), "utf8");
const BINARY = process.env.PORTCULLIS_BIN ?? join(ROOT, "target/debug/portcullis");
/** Not what the program holds, but what lies in dist: for whoever works on the console. */
const FROM_DISK = process.env.CONSOLE_FROM_DISK;

export const WRITER = "writer-token-0123456789abcdef";
export const READER = "reader-token-fedcba9876543210";
export const POLICY = `
vpcs: [{ name: prod, segment: { untagged: true } }]
address_groups: [{ name: offices, addresses: [192.0.2.0/24] }]
security_groups:
  - name: web
    description: what the servers of the shop let in
    rules:
      - { direction: inbound, protocol: tcp, ports: 22, remote: 198.51.100.0/24, description: operators }
      - { direction: inbound, protocol: icmp, icmp_type: 8 }
      - { direction: outbound }
  - name: db
    rules: [{ direction: inbound, protocol: tcp, ports: 5432, remote_group: web }]
nics:
  - { name: web-1, vpc: prod, mac: "02:00:00:00:00:07", addresses: [10.5.6.7], security_groups: [web] }
  - { name: db-1, vpc: prod, addresses: [10.5.6.8], security_groups: [db] }
`;

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export async function until(what, look, patience = 10_000) {
  const end = Date.now() + patience;
  for (;;) {
    const found = await look();
    if (found) return found;
    assert(Date.now() < end, `not within ${patience} ms: ${what}`);
    await pause(50);
  }
}

const freePort = () => new Promise((done) => {
  const probe = createServer().listen(0, "127.0.0.1", () => { const { port } = probe.address(); probe.close(() => done(port)); });
});

const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
export function start(program, args, options) {
  const child = spawn(program, args, options);
  children.add(child);
  child.on("exit", () => children.delete(child));
  return child;
}

let appliances = 0;
/** A running appliance with a directory of its own. */
export class Appliance {
  static async start({ policy = POLICY, vdevs = ["net_null0,no-rx=1", "net_null1,no-rx=1"], api, conntrack = "", more = "", memory = 128 } = {}) {
    const it = new Appliance();
    it.directory = mkdtempSync(join(tmpdir(), "console-"));
    it.port = await freePort();
    it.url = `http://127.0.0.1:${it.port}`;
    it.log = "";
    writeFileSync(it.file("tokens"), `anna ${WRITER}\nrob ${READER} read\n`, { mode: 0o600 });
    writeFileSync(it.file("policy.yaml"), policy);
    const names = vdevs.map((vdev) => vdev.split(",")[0]);
    const args = ["--no-pci", "--no-huge", "-m", String(memory), "--no-telemetry", `--file-prefix=console-${process.pid}-${(appliances += 1)}`, ...vdevs.map((vdev) => `--vdev=${vdev}`)];
    writeFileSync(it.file("portcullis.toml"), `
[eal]
args = ${JSON.stringify(args)}
[[wire]]
name = "wire0"
inside = "${names[0]}"
outside = "${names[1]}"
[workers]
cores = [1]
idle = "park"
[conntrack]
${conntrack}
[api]
socket = "${it.file("api.sock")}"
listen = "127.0.0.1:${it.port}"
${api ?? `token_file = "${it.file("tokens")}"`}
[store]
path = "${it.file("store.redb")}"
${more}
`);
    await it.run();
    return it;
  }

  file(name) { return join(this.directory, name); }

  async run() {
    this.process = start(BINARY, ["run", "--config", this.file("portcullis.toml"), "--policy", this.file("policy.yaml")], { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    for (const stream of [this.process.stdout, this.process.stderr]) stream.on("data", (data) => { said += data; this.log += data; });
    await until("the appliance is ready", () => {
      assert(this.process.exitCode === null, said);
      return said.includes("portcullis: ready");
    }, 60_000);
  }

  async stop(signal = "SIGTERM") {
    if (this.process.exitCode !== null) return;
    const ended = new Promise((done) => this.process.once("exit", done));
    this.process.kill(signal);
    await ended;
  }

  async end() {
    await this.stop();
    rmSync(this.directory, { recursive: true });
  }

  /** A request of no browser's. */
  async ask(path, { token = WRITER, ...more } = {}) {
    const headers = { ...more.headers };
    if (token) headers.Authorization = `Bearer ${token}`;
    const answer = await fetch(this.url + path, { ...more, headers });
    const text = await answer.text();
    let body = text;
    try { body = JSON.parse(text); } catch { /* no JSON */ }
    return { status: answer.status, body, headers: answer.headers };
  }
}

/** Two cables and what sends frames over them; within the network namespace that the tests run in. */
export async function wire(name) {
  const ip = (...words) => new Promise((done, failed) => start("ip", words).on("exit", (status) => (status ? failed(new Error(`ip ${words.join(" ")}`)) : done())));
  for (const end of ["in", "out"]) {
    await ip("link", "add", `${name}-${end}`, "type", "veth", "peer", "name", `${name}-${end}-p`);
    for (const side of ["", "-p"]) await ip("link", "set", `${name}-${end}${side}`, "up");
  }
  const sender = start("python3", [join(ROOT, "ctrl/console/tests/wire.py"), `${name}-in-p`, `${name}-out-p`], { stdio: ["pipe", "ignore", "ignore"] });
  const rings = "blocksz=65536,framesz=2048,framecnt=512";
  return {
    vdevs: [`net_af_packet0,iface=${name}-in,${rings}`, `net_af_packet1,iface=${name}-out,${rings}`],
    link: (end, state) => ip("link", "set", `${name}-${end}-p`, state),
    say: (line) => sender.stdin.write(`${line}\n`),
    end: () => sender.kill(),
  };
}

/** What no page may ever do, whatever is tested. */
export const found = { violations: [], foreign: [], leaked: [], errors: [] };

export const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP *.example 127.0.0.1", "--disable-dev-shm-usage"],
});

const KINDS = { "": "index.html", "console.js": "console.js", "console.css": "console.css", "icon.svg": "icon.svg" };

/** A page of a browser of its own, at an appliance. `token`: is in the tab already. */
export async function page(appliance, { token, dark = false, width = 1280, height = 800, path = "" } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? "dark" : "light", acceptDownloads: true });
  const page = await context.newPage();
  const name = token === WRITER ? "writer" : token === READER ? "reader" : "nobody";
  page.on("console", (message) => { if (/Content Security Policy|TrustedScript|TrustedHTML/i.test(message.text())) found.violations.push(message.text()); });
  page.on("pageerror", (error) => found.errors.push(`${name}: ${error.stack}`));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(`${appliance.url}/`) && !url.startsWith("blob:")) found.foreign.push(url);
    if (url.includes(WRITER) || url.includes(READER)) found.leaked.push(url);
  });
  await page.addInitScript(() => addEventListener("securitypolicyviolation", (event) => console.error(`Content Security Policy: ${event.violatedDirective} ${event.blockedURI}`)));
  if (token) await page.addInitScript((token) => { if (!sessionStorage.getItem("portcullis-token") && !sessionStorage.getItem("tested")) { sessionStorage.setItem("portcullis-token", token); sessionStorage.setItem("tested", "1"); } }, token);
  if (FROM_DISK) {
    await page.route(`${appliance.url}/console/*`, async (route) => {
      const name = KINDS[new URL(route.request().url()).pathname.replace("/console/", "")];
      const answer = await route.fetch();
      await route.fulfill({ response: answer, body: readFileSync(join(ROOT, "ctrl/console/dist", name)) });
    });
  }
  await page.goto(`${appliance.url}/console/${path}`);
  return page;
}

/** Nothing that somebody without sight or mouse would stumble over, by axe's rules. */
export async function accessible(page, where) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const serious = violations.filter((violation) => ["serious", "critical"].includes(violation.impact));
  const told = serious.map((violation) => `${violation.id}: ${violation.help}: ${violation.nodes.slice(0, 3).map((node) => `${node.html}\n    ${node.failureSummary}`).join("\n  ")}`);
  assert.equal(told.length, 0, `${where}:\n${told.join("\n")}`);
  return violations.length;
}

const PICTURES = join(ROOT, "docs/console");
/** A picture for the documentation, where it is asked for. */
export async function picture(page, name, { full = false } = {}) {
  if (!process.env.CONSOLE_PICTURES) return;
  if (!existsSync(PICTURES)) mkdirSync(PICTURES, { recursive: true });
  await page.screenshot({ path: join(PICTURES, `${name}.png`), fullPage: full, animations: "disabled" });
}

/** Goes to a view by its link. */
export async function view(page, name) {
  await page.getByRole("navigation", { name: "Views" }).getByRole("link", { name, exact: true }).click();
  await page.getByRole("heading", { level: 1, name, exact: true }).waitFor();
}

const all = [];
/** A test, run in turn. */
export const test = (name, act) => all.push([name, act]);

export async function runAll() {
  const only = process.argv.slice(2);
  let failed = 0;
  for (const [name, act] of all) {
    if (only.length && !only.some((word) => name.includes(word))) continue;
    const begin = Date.now();
    try {
      await act();
      console.log(`ok    ${name} (${Date.now() - begin} ms)`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL  ${name} (${Date.now() - begin} ms)\n${error.stack}`);
      for (const context of browser.contexts()) for (const [at, page] of context.pages().entries()) {
        const to = join(ROOT, `target/console-failed-${failed}-${at}.png`);
        await page.screenshot({ path: to }).then(() => console.log(`      ${to}`), () => {});
      }
    }
    await Promise.all(browser.contexts().map((context) => context.close()));
  }
  for (const [what, list] of Object.entries(found)) {
    if (!list.length) continue;
    failed += 1;
    console.log(`FAIL  ${what}: ${list.length}\n${[...new Set(list)].slice(0, 10).join("\n")}`);
  }
  await browser.close();
  return failed;
}
