// The tests of the console in a browser: node run.mjs [PART OF A NAME…]. scripts/console-test gives them a network of their own.
import { runAll } from "./harness.mjs";
import "./flows.mjs";
import "./attacks.mjs";
import "./sizes.mjs";

const failed = await runAll();
console.log(failed ? `${failed} failed` : "all passed");
process.exit(failed ? 1 : 0);
