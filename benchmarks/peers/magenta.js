// @magenta/sketch with random weights in its own JSON format: for each line "n" on stdin it samples n points
// and answers with the milliseconds that took. Usage: node magenta.js FOLDER_WITH_NODE_MODULES
const path = require("path");
const folder = path.resolve(process.argv[2], "node_modules");
const tf = require(path.join(folder, "@tensorflow/tfjs"));
const { SketchRNN } = require(path.join(folder, "@magenta/sketch"));
const readline = require("readline");

globalThis.atob = globalThis.atob || ((text) => Buffer.from(text, "base64").toString("binary"));
const UNITS = 512, OUTPUTS = 123;
const shapes = [[UNITS, OUTPUTS], [OUTPUTS], [5, 4 * UNITS], [UNITS, 4 * UNITS], [4 * UNITS]];
let seed = 1;
const random = () => ((seed = (seed * 48271) % 2147483647) / 2147483647);
const strings = shapes.map((shape) => {
  const count = shape.reduce((a, b) => a * b, 1);
  const values = Int16Array.from({ length: count }, () => Math.round((random() - 0.5) * 600));
  return Buffer.from(values.buffer).toString("base64");
});
const model = new SketchRNN("");
model.instantiateFromJSON({ scale_factor: 87.6, mode: 2, version: 6, max_seq_len: 250, name: "random" }, shapes, strings);

function draw(n) {
  let state = model.zeroState();
  let stroke = model.zeroInput();
  for (let i = 0; i < n; i++) {
    state = model.update(stroke, state);
    stroke = model.sample(model.getPDF(state, 0.4));
  }
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const began = process.hrtime.bigint();
  draw(Number(line));
  console.log(JSON.stringify({ ms: Number(process.hrtime.bigint() - began) / 1e6, backend: tf.getBackend() }));
});
