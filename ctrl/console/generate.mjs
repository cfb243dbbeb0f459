// Writes src/api.js, a function for each operation of docs/openapi.json: node generate.mjs OPENAPI > src/api.js
import { readFileSync } from "node:fs";

const described = JSON.parse(readFileSync(process.argv[2], "utf8"));
const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
const lines = [
  "// Made of docs/openapi.json by scripts/console-build: a function for each operation.",
  "// Paths' parameters come first, then those of the query by name, then what transport.js takes (body, match, signal).",
  'import { ask } from "./transport.js";',
];
for (const [path, item] of Object.entries(described.paths)) {
  for (const method of ["get", "put", "post", "patch", "delete"]) {
    const operation = item[method];
    if (!operation) continue;
    const inPath = [...path.matchAll(/\{(.*?)\}/g)].map((found) => found[1]);
    const inQuery = (operation.parameters ?? []).filter((p) => p.in === "query").map((p) => p.name);
    const written = path.replace(/\{(.*?)\}/g, (_, name) => "${encodeURIComponent(" + camel(name) + ")}");
    const quoted = inPath.length ? "`" + written + "`" : JSON.stringify(path);
    const parameters = [...inPath.map(camel), "query", "more"].join(", ");
    const told = inQuery.length ? ` Query: ${inQuery.join(", ")}.` : "";
    lines.push("", `/** ${operation.summary}.${told} */`);
    lines.push(`export const ${camel(operation.operationId)} = (${parameters}) => ask(${JSON.stringify(method.toUpperCase())}, ${quoted}, query, more);`);
  }
}
console.log(lines.join("\n"));
