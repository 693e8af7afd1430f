// The page's endpoints from JavaScript: node examples/client.mjs [http://127.0.0.1:7860]
// Needs `npm install @gradio/client`, node 20 or newer, and a page that runs (`python app.py`).

import { writeFileSync } from "node:fs";
import { Client } from "@gradio/client";

const client = await Client.connect(process.argv[2] ?? "http://127.0.0.1:7860");

// Strokes are lists of [x, y] in pixels, y down; here two ears and the top of a head.
const start = [[[60, 200], [120, 90], [200, 60], [300, 90], [360, 200]]];

const { data: [endings] } = await client.predict("/complete", { strokes: start, category: "cat", n: 3, seed: 7 });
console.log(`${endings.length} endings; the first adds ${endings[0].length} strokes`);

const { data: [pictures] } = await client.predict("/draw", { category: "cat", n: 1, form: "svg" });
writeFileSync("cat.svg", pictures[0]);
console.log("a free one is in cat.svg");

const { data: [guesses] } = await client.predict("/guess", { strokes: [...start, ...endings[0]] });
console.log(`it is taken for ${guesses[0][0]}`);

try {
  await client.predict("/draw", { category: "unicorn" });
} catch (error) {
  console.log(error.message); // one clear sentence
}
process.exit(0); // the client's heartbeat would keep node alive
