// What @magenta/sketch foresees after some strokes, for tests of the importer:
//   node magenta_reference.js PEERS MODEL.gen.json STROKES.json > REFERENCE.json
// STROKES holds rows (Δx, Δy, p1, p2, p3) in the model's own pixels. Printed are, after each row, the raw parameters at
// temperature 1: π, μx, μy, σx, σy, ρ (20 each) and the three pen probabilities.
const path = require("path");
const fs = require("fs");
const [peers, file, given] = process.argv.slice(2);
const sketch = require(path.join(peers, "node_modules", "@magenta", "sketch"));
const [info, dimensions, weights] = JSON.parse(fs.readFileSync(file));
const model = new sketch.SketchRNN("");
model.instantiateFromJSON(info, dimensions, weights);
model.setPixelFactor(1.0);
let state = model.zeroState();
const found = [];
for (const row of JSON.parse(fs.readFileSync(given))) {
  state = model.update(row, state);
  const pdf = model.getPDF(state, 1.0, 1.0);
  const m = pdf.pi.length; // sigmaY is cut too long by the library
  found.push([pdf.pi, pdf.muX, pdf.muY, pdf.sigmaX, pdf.sigmaY.slice(0, m), pdf.corr, pdf.pen].map((a) => Array.from(a)));
}
console.log(JSON.stringify(found));
