// Sharing: a link that carries the drawing and the settings in its fragment (which no server ever sees), files out and
// in, and a set of one's own drawings to train on.
//
// #v=2&m=finish&k=duet-345&c=cat&t=0.4&s=7&n=9&f=0.5&e=3&o=2&d=…&x=…: mode, network, category, temperature, seed, how
// many, how far, the drawing, a check. Of the endings: e is the one on the pad (the first if left out); where it was
// taken, o says of how many of the first strokes it is an ending, or b is the drawing that it varies. g is the guess.
// A drawing is bytes in base64url: for each stroke a varint (2 x points + who), then each point as zig-zag varints of
// its step from the one before, in tenths of a pad unit, which is what points are rounded to when drawn: nothing is lost.
(() => {
  const duet = window.doodleDuet;
  if (!duet || duet.link) return;
  const { say, make, settings } = duet;
  const GRID = 10, VERSION = "2", MOST_POINTS = 20000, MOST_STROKES = 2000, FAR = 4096, LONGEST = 300000;
  const MODES = ["finish", "vary", "compare", "blend", "dream", "inside"];
  const FIELDS = ["m", "k", "c", "g", "t", "s", "n", "f", "e", "o", "b", "d"];

  // --- the codec -------------------------------------------------------------------------------------
  function encode(strokes) {
    const bytes = [];
    const varint = (value) => { for (; value > 127; value = Math.floor(value / 128)) bytes.push((value & 127) | 128); bytes.push(value); };
    const zigzag = (value) => varint(value < 0 ? -2 * value - 1 : 2 * value);
    let x = 0, y = 0;
    for (const { by, points } of strokes) {
      varint(2 * points.length + (by === "net" ? 1 : 0));
      for (const [px, py] of points) {
        const qx = Math.round(px * GRID), qy = Math.round(py * GRID);
        zigzag(qx - x);
        zigzag(qy - y);
        x = qx;
        y = qy;
      }
    }
    let text = "";
    for (const byte of bytes) text += String.fromCharCode(byte);
    return btoa(text).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  }

  function decode(text) {
    if (text.length > LONGEST || !/^[\w-]*$/.test(text)) throw new Error("damaged");
    const raw = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    let at = 0;
    const varint = () => {
      let value = 0, factor = 1;
      for (let k = 0; k < 5; k++) {
        if (at >= raw.length) throw new Error("damaged");
        const byte = raw.charCodeAt(at++);
        value += (byte & 127) * factor;
        if (byte < 128) return value;
        factor *= 128;
      }
      throw new Error("damaged");
    };
    const zigzag = () => { const value = varint(); return value % 2 ? -(value + 1) / 2 : value / 2; };
    const strokes = [];
    let x = 0, y = 0, total = 0;
    while (at < raw.length) {
      const head = varint(), n = Math.floor(head / 2);
      total += n;
      if (!n || total > MOST_POINTS || strokes.length >= MOST_STROKES) throw new Error("damaged");
      const points = [];
      for (let i = 0; i < n; i++) {
        x += zigzag();
        y += zigzag();
        if (Math.abs(x) > FAR * GRID || Math.abs(y) > FAR * GRID) throw new Error("damaged");
        points.push([x / GRID, y / GRID]);
      }
      strokes.push({ by: head % 2 ? "net" : "hand", points });
    }
    return strokes;
  }

  // Of the fields' values, not of their spelling: mail programs escape some characters. FNV-1a.
  function check(values) {
    let hash = 0x811c9dc5;
    for (const name of FIELDS) {
      for (const letter of values.has(name) ? `${name}=${values.get(name)};` : "") {
        hash = Math.imul(hash ^ letter.codePointAt(0), 0x01000193) >>> 0;
      }
    }
    return hash.toString(36);
  }

  // --- the link --------------------------------------------------------------------------------------
  // A drawing as another one's first strokes?
  const begins = (base, strokes) => base.length <= strokes.length && base.every((stroke, i) => encode([stroke]) === encode([strokes[i]]));

  // null where the drawing is too large for one.
  duet.link = () => {
    const strokes = duet.strokes(), { taken, shown, base, guessed } = duet.turnNow();
    if (strokes.length > MOST_STROKES || strokes.reduce((sum, s) => sum + s.points.length, 0) > MOST_POINTS) return null;
    const values = new URLSearchParams({ v: VERSION, m: settings.mode });
    if (settings.model) values.set("k", settings.model);
    if (settings.category) values.set("c", settings.category);
    if (guessed) values.set("g", guessed);
    for (const [name, value] of [["t", settings.temperature], ["s", settings.seed], ["n", settings.n], ["f", settings.spread]]) {
      values.set(name, value);
    }
    if (taken !== null || shown) values.set("e", taken !== null ? taken : shown);
    if (taken !== null && begins(base, strokes)) values.set("o", base.length);
    else if (taken !== null) values.set("b", encode(base));
    values.set("d", encode(strokes));
    values.set("x", check(values));
    return `${location.href.split("#")[0]}#${values}`;
  };

  // What a fragment says: null for none of ours, an error for a damaged one.
  function parse(fragment) {
    const text = fragment.replace(/^#/, "");
    if (/^[\w-]{0,40}$/.test(text)) return null; // a place on a page, as of any other site
    const values = new URLSearchParams(text), version = values.get("v");
    if (/^\d{1,3}$/.test(version || "") && Number(version) > Number(VERSION)) throw new Error("version");
    if (!["1", VERSION].includes(version) || !values.has("d")) throw new Error("damaged");
    if ([...FIELDS, "v", "x"].some((name) => values.getAll(name).length > 1)) throw new Error("damaged");
    // Version 1 had no check, and of the endings it told nothing.
    if (version !== "1" && values.get("x") !== check(values)) throw new Error("damaged");
    const number = (name, low, high, usual) => {
      if (!values.has(name)) return usual;
      const value = /^-?[\d.]{1,24}$/.test(values.get(name)) ? Number(values.get(name)) : NaN;
      if (!(value >= low && value <= high)) throw new Error("damaged");
      return value;
    };
    const whole = (...range) => Math.floor(number(...range));
    const mode = values.get("m") || "finish", category = values.get("c"), named = values.get("k"), guessed = values.get("g");
    // A network that is not here is no damage: the usual one goes on from the same strokes.
    const models = window.doodleDuetModels || [], found = models.find(({ name }) => name === named) || models[0];
    const known = found ? found.categories : [], missing = named && found && found.name !== named;
    const knows = (name) => !name || known.includes(name) || missing;
    if (!MODES.includes(mode) || !(category === duet.AUTO || knows(category)) || !knows(guessed)) throw new Error("damaged");
    const n = whole("n", 1, 9, 9), shown = whole("e", 0, n - 1, 0), strokes = decode(values.get("d"));
    const base = values.has("b") ? decode(values.get("b")) : values.has("o") ? strokes.slice(0, whole("o", 0, strokes.length, 0)) : null;
    return {
      strokes, base, shown, taken: base ? shown : null,
      guessed: known.includes(guessed) ? guessed : null,
      notice: missing ? "say_opened_otherwise" : "say_opened", names: { name: String(named).slice(0, 60) },
      settings: {
        mode, category: category === duet.AUTO || known.includes(category) ? category : null, model: found ? found.name : null,
        temperature: number("t", 0.1, 1, 0.4), seed: whole("s", 0, 2147483647, 0), n, spread: number("f", 0, 2, 0.5),
      },
    };
  }

  duet.readLink = (fragment) => {
    try {
      return parse(fragment);
    } catch (error) { // whatever it was: nothing of the link is shown
      return { damaged: true, version: error.message === "version" };
    }
  };
  // Called by the pad before anything else is shown: {strokes, settings, …}, or null.
  duet.opened = () => duet.readLink(location.hash);
  window.addEventListener("hashchange", () => duet.followLink());

  // --- pictures --------------------------------------------------------------------------------------
  const INK = { hand: "#1f2430", net: "#c2410c" }, WIDTH = { hand: 5, net: 3.6 };

  // The pad, or the square around it that holds a drawing which leaves it.
  function square() {
    let low = 0, high = duet.SIDE;
    for (const { points } of duet.strokes()) for (const [x, y] of points) {
      low = Math.min(low, x - 12, y - 12);
      high = Math.max(high, x + 12, y + 12);
    }
    const off = duet.strokes().some(({ points }) => points.some(([x, y]) => Math.min(x, y) < 0 || Math.max(x, y) > duet.SIDE));
    return off ? { low, side: high - low } : { low: 0, side: duet.SIDE };
  }

  const number = (value) => Number(value.toFixed(2));
  function svg() {
    const { low, side } = square();
    const paths = duet.strokes().map(({ by, points }) => {
      let d = "";
      const pen = { // what the canvas is told, written down
        beginPath() {}, stroke() {},
        moveTo(x, y) { d += `M${number(x)} ${number(y)}`; },
        lineTo(x, y) { d += `L${number(x)} ${number(y)}`; },
        bezierCurveTo(a, b, c, e, x, y) { d += `C${[a, b, c, e, x, y].map(number).join(" ")}`; },
      };
      duet.trace(pen, points);
      return `<path d="${d}" stroke="${INK[by]}" stroke-width="${WIDTH[by]}"/>`;
    });
    const box = [low, low, side, side].map(number).join(" ");
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="${box}" fill="none" stroke-linecap="round" stroke-linejoin="round">${paths.join("")}</svg>\n`;
  }

  function png(clear) {
    const canvas = make("canvas", { width: 1024, height: 1024 }), context = canvas.getContext("2d"), { low, side } = square();
    if (!clear) { context.fillStyle = "#ffffff"; context.fillRect(0, 0, 1024, 1024); }
    context.scale(1024 / side, 1024 / side);
    context.translate(-low, -low);
    context.lineCap = context.lineJoin = "round";
    for (const { by, points } of duet.strokes()) {
      context.strokeStyle = INK[by];
      context.lineWidth = WIDTH[by];
      duet.trace(context, points);
    }
    return new Promise((resolve, reject) => {
      canvas.toBlob((blob) => { if (blob) resolve(blob); else reject(new Error("png")); }, "image/png");
    });
  }

  // The server draws it, as all of the page's work: {code} where it cannot.
  async function ask(what, body, type) {
    let answer;
    try {
      answer = await fetch(`share/${what}`, { method: "POST", body, headers: { "content-type": type } });
    } catch { throw new Error("offline"); }
    if (answer.ok) return answer;
    let code = answer.status === 413 ? "large" : answer.status === 429 || answer.status === 503 ? "busy" : "internal";
    try { code = (await answer.json()).code || code; } catch { /* not from us: a proxy's page */ }
    throw new Error(code);
  }

  async function gif() {
    const strokes = simpler(duet.strokes(), 0.3);
    const body = JSON.stringify({ strokes: strokes.map(({ points }) => points), by: strokes.map(({ by }) => by) });
    return (await ask("gif", body, "application/json")).blob();
  }

  // --- numbers ---------------------------------------------------------------------------------------
  // Ramer-Douglas-Peucker: points that lie within `epsilon` of the lines that stay are left out.
  function thin(points, epsilon) {
    const keep = new Set([0, points.length - 1]), spans = [[0, points.length - 1]];
    while (spans.length) {
      const [first, last] = spans.pop(), [x0, y0] = points[first], dx = points[last][0] - x0, dy = points[last][1] - y0;
      let far = epsilon, at = 0;
      for (let i = first + 1; i < last; i++) {
        const t = Math.min(1, Math.max(0, ((points[i][0] - x0) * dx + (points[i][1] - y0) * dy) / (dx * dx + dy * dy || 1)));
        const off = Math.hypot(points[i][0] - x0 - t * dx, points[i][1] - y0 - t * dy);
        if (off > far) { far = off; at = i; }
      }
      if (at) { keep.add(at); spans.push([first, at], [at, last]); }
    }
    return points.filter((_, i) => keep.has(i));
  }

  // Few enough points to be sent.
  function simpler(strokes, epsilon) {
    const thinner = strokes.map(({ by, points }) => ({ by, points: thin(points, epsilon).map(([x, y]) => [x, y]) }));
    const total = thinner.reduce((sum, { points }) => sum + points.length, 0);
    return total > 2000 && epsilon < 20 ? simpler(thinner, 2 * epsilon) : thinner;
  }

  const json = () => `${JSON.stringify({
    strokes: duet.drawing().map(({ points }) => points), by: duet.drawing().map(({ by }) => by),
  })}\n`;

  // Rows [Δx, Δy, lift], as in the paper's data; the first point is the origin and has no row.
  function stroke3() {
    const rows = [];
    let last = null;
    duet.strokes().forEach(({ points }, k) => {
      if (!k && points.length === 1) rows.push([0, 0, 1]); // a first dot needs a row for its lift
      points.forEach(([x, y], i) => {
        if (last) rows.push([Math.round((x - last[0]) * 10) / 10, Math.round((y - last[1]) * 10) / 10, i === points.length - 1 ? 1 : 0]);
        last = [x, y];
      });
    });
    return `${JSON.stringify(rows)}\n`;
  }

  // An entry of Quick, Draw!'s simplified form: whole numbers from 0 to 255, simplified by 2.
  function quick(word) {
    const strokes = duet.strokes(), all = strokes.flatMap((s) => s.points);
    const low = [0, 1].map((k) => Math.min(...all.map((p) => p[k]))), high = [0, 1].map((k) => Math.max(...all.map((p) => p[k])));
    const side = Math.max(high[0] - low[0], high[1] - low[1]), scale = side > 0 ? 255 / side : 1;
    const drawing = strokes.map(({ points }) => {
      const small = thin(points.map((p) => [0, 1].map((k) => (p[k] - low[k]) * scale)), 2);
      return [0, 1].map((k) => small.map((p) => Math.round(p[k])));
    });
    const key = Array.from(crypto.getRandomValues(new Uint32Array(2)), (value) => String(value % 1e8).padStart(8, "0")).join("");
    return { word, recognized: true, key_id: key, drawing };
  }
  const ndjson = () => `${JSON.stringify(quick(duet.category() || "doodle"))}\n`;

  // --- out -------------------------------------------------------------------------------------------
  const FORMS = {
    png: { type: "image/png", make: () => png(clear && clear.checked) },
    svg: { type: "image/svg+xml", text: true, make: svg },
    gif: { type: "image/gif", make: gif },
    json: { type: "application/json", text: true, make: json },
    stroke3: { type: "application/json", text: true, make: stroke3, ending: "stroke3.json" },
    ndjson: { type: "application/x-ndjson", text: true, make: ndjson },
  };

  function save(content, name, type) {
    const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
  const fileName = (word) => word.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "doodle";

  // Where the clipboard is refused, as in a frame, the old way may still do: mark it and say "copy".
  async function copyText(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { /* refused, or not there without https */ }
    const area = make("textarea", { value: text, className: "duet-offstage" });
    area.setAttribute("aria-hidden", "true");
    (dialog && dialog.open ? dialog : document.body).append(area);
    const before = document.activeElement;
    area.select();
    let done = false;
    try { done = document.execCommand("copy"); } catch { /* then not */ }
    area.remove();
    if (before) before.focus();
    return done;
  }

  async function copy(name) {
    const form = FORMS[name];
    if (form.text) return copyText(form.make());
    if (!navigator.clipboard || !window.ClipboardItem) return false;
    if (ClipboardItem.supports && !ClipboardItem.supports(form.type)) return false;
    try {
      await navigator.clipboard.write([new ClipboardItem({ [form.type]: form.make() })]); // a promise: Safari wants it so
      return true;
    } catch { return false; }
  }

  // --- in --------------------------------------------------------------------------------------------
  const MOST_BYTES = 250000;

  // Strokes of JSON: [[[x, y], ...], ...], this page's own form (also that of its first version), stroke-3 rows, or a
  // Quick, Draw! line.
  function readJson(text) {
    const first = text.trim().split("\n")[0];
    let value;
    try { value = JSON.parse(text); } catch { value = JSON.parse(first); }
    if (isStroke3(value)) return { strokes: fromStroke3(value), placed: "nowhere" };
    let strokes = Array.isArray(value) ? value : value.strokes || value.drawing;
    if (!Array.isArray(strokes) || !strokes.length || strokes.length > MOST_STROKES) throw new Error("unread");
    const hands = !Array.isArray(value) && Array.isArray(value.by) ? value.by : [];
    strokes = strokes.map((stroke, k) => {
      if (stroke && Array.isArray(stroke.points)) return { by: stroke.by, points: stroke.points };
      if (!Array.isArray(stroke)) throw new Error("unread");
      // Quick, Draw!: [[x, ...], [y, ...]], with times in some files.
      const columns = Array.isArray(value.drawing) && Array.isArray(stroke[0]) && Array.isArray(stroke[1]);
      return { by: hands[k], points: columns ? stroke[0].map((x, i) => [x, stroke[1][i]]) : stroke };
    });
    const ours = Array.isArray(value.strokes) && strokes.every(({ by }) => by === "hand" || by === "net");
    return { strokes, placed: ours ? "here" : value.drawing ? "nowhere" : "perhaps" };
  }

  const isStroke3 = (value) => Array.isArray(value) && value.length > 0
    && value.every((row) => Array.isArray(row) && row.length === 3 && row.every(Number.isFinite) && (row[2] === 0 || row[2] === 1));
  function fromStroke3(rows) {
    let x = 0, y = 0, points = [[0, 0]];
    const strokes = [];
    rows.forEach(([dx, dy, lift], i) => {
      x += dx;
      y += dy;
      if (i || dx || dy || !lift) points.push([x, y]); // a first (0, 0, 1) is a dot's lift
      if (lift) { strokes.push({ points }); points = []; }
    });
    if (points.length) strokes.push({ points });
    return strokes;
  }

  // Sound strokes, fitted to the pad unless they have a place on it: what is on it and not tiny perhaps does.
  function fitted({ strokes, placed }) {
    const all = strokes.flatMap((s) => s.points);
    if (!all.length || all.length > MOST_POINTS || strokes.length > MOST_STROKES || !strokes.every((s) => s.points.length)
      || !all.every((p) => Array.isArray(p) && Number.isFinite(p[0]) && Number.isFinite(p[1]) && Math.abs(p[0]) < 1e6 && Math.abs(p[1]) < 1e6)) {
      throw new Error("unread");
    }
    const [low, high] = all.reduce(([low, high], p) => [
      [Math.min(low[0], p[0]), Math.min(low[1], p[1])], [Math.max(high[0], p[0]), Math.max(high[1], p[1])],
    ], [[Infinity, Infinity], [-Infinity, -Infinity]]);
    const side = Math.max(high[0] - low[0], high[1] - low[1]);
    const onPad = Math.min(...low) >= 0 && Math.max(...high) <= duet.SIDE
      && (placed === "here" || (placed === "perhaps" && side >= duet.SIDE / 3));
    const scale = onPad || !side ? 1 : (0.8 * duet.SIDE) / side;
    const fit = (p, k) => Math.round(10 * (onPad ? p[k] : (p[k] - (low[k] + high[k]) / 2) * scale + duet.SIDE / 2)) / 10;
    return strokes.map((s) => ({ by: s.by === "net" ? "net" : "hand", points: s.points.map((p) => [fit(p, 0), fit(p, 1)]) }));
  }

  // A picture is read by the server, so that nothing of it ever comes near this document.
  async function read(text) {
    if (text.length > 4 * MOST_BYTES) throw new Error("large");
    if (!text.trimStart().startsWith("<")) {
      try { return fitted(readJson(text)); } catch { throw new Error("unread"); }
    }
    if (new Blob([text]).size > MOST_BYTES) throw new Error("large");
    const { strokes } = await (await ask("svg", text, "text/plain")).json();
    return fitted({ strokes: strokes.map((points) => ({ points })), placed: "perhaps" });
  }

  const REASONS = ["large", "entities", "broken", "numbers", "loop", "detailed", "empty", "drawing", "busy", "offline", "internal"];
  const why = (error) => `share_not_${REASONS.includes(error.message) ? error.message : "unread"}`;

  // From a file, a drop or the clipboard; one step to undo. Whether it is on the pad.
  async function open(source) {
    try {
      if (duet.drawingNow()) return false;
      let file = source;
      if (file.name && file.name.endsWith(".ndjson")) file = file.slice(0, 4 * MOST_BYTES); // its first line is enough
      if (file.size > 4 * MOST_BYTES) throw new Error("large");
      const strokes = await read(typeof file === "string" ? file : await file.text());
      duet.put(strokes);
      duet.tell("say_from_file");
      if (dialog && dialog.open) dialog.close();
      return true;
    } catch (error) {
      if (dialog && dialog.open) hear(say(why(error)), true);
      else duet.tell(why(error), {}, "warn");
      return false;
    }
  }

  // Files may be dropped anywhere: elsewhere on the page the browser would leave it and show the file.
  const frame = () => document.querySelector(".duet-pad-frame");
  const carriesFile = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    if (frame()) frame().classList.add("duet-drop");
  });
  for (const over of ["dragleave", "dragend", "drop"]) {
    document.addEventListener(over, (event) => {
      if (over === "dragleave" && event.relatedTarget) return; // still on the page
      if (frame()) frame().classList.remove("duet-drop");
    });
  }
  document.addEventListener("drop", (event) => {
    if (!carriesFile(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
  });

  document.addEventListener("paste", (event) => {
    const field = event.target.closest && event.target.closest("input, textarea, [contenteditable]");
    if ((field && !field.readOnly) || !event.clipboardData) return;
    const [file] = event.clipboardData.files, text = event.clipboardData.getData("text/plain");
    if (file && /json|svg|text/.test(file.type)) { event.preventDefault(); open(file); return; }
    if (/^\s*[<[{]/.test(text)) { event.preventDefault(); open(text); return; }
    const link = text.trim().match(/^https?:\/\/\S+?#(v=\d+&\S+)$/);
    if (link) { event.preventDefault(); location.hash = link[1]; }
  });

  // --- a set of one's own ----------------------------------------------------------------------------
  const KEPT = "doodle-duet-set", MOST_WORD = 40;
  const collection = { entries: [], before: [] };

  function soundEntry(entry) {
    return entry && typeof entry.word === "string" && Array.isArray(entry.drawing) && entry.drawing.length
      && entry.drawing.every((s) => Array.isArray(s) && s.length === 2 && Array.isArray(s[0]) && Array.isArray(s[1])
        && s[0].length && s[0].length === s[1].length && [...s[0], ...s[1]].every(Number.isFinite));
  }
  function recallSet() {
    try {
      const kept = JSON.parse(localStorage.getItem(KEPT) || "[]");
      collection.entries = Array.isArray(kept) ? kept.filter(soundEntry) : [];
    } catch { collection.entries = []; }
  }
  // Whether there was room for it.
  function keepSet(entries) {
    try { localStorage.setItem(KEPT, JSON.stringify(entries)); } catch { return false; }
    collection.before.push(collection.entries);
    collection.entries = entries;
    return true;
  }
  function undoSet() {
    const entries = collection.before.pop();
    if (!entries) return;
    collection.entries = entries;
    try { localStorage.setItem(KEPT, JSON.stringify(entries)); } catch { /* it was there before */ }
  }
  const lines = () => collection.entries.map((entry) => `${JSON.stringify(entry)}\n`).join("");
  const wordOf = (text) => text.replace(/[\p{C}\s]+/gu, " ").trim().slice(0, MOST_WORD).trim();

  // --- the dialog ------------------------------------------------------------------------------------
  let dialog = null, field = null, clear = null, parts = {};
  const hear = (text, bad = false) => {
    parts.says.textContent = text;
    parts.says.dataset.tone = bad ? "warn" : "";
  };

  function labelled(key, control) {
    return make("label", { className: "duet-share-label" }, make("span", { text: say(key) }), control);
  }

  function build() {
    const button = (key, click, kind = "") => make("button", { type: "button", className: `duet-tool ${kind}`, text: say(key), on: { click } });
    // Link
    field = make("input", { type: "text", readOnly: true, on: { focus: () => field.select() } });
    field.setAttribute("aria-label", say("share_link"));
    parts.link = button("share_copy", async () => {
      hear("");
      if (await copyText(field.value)) { hear(say("share_copied")); return; }
      field.focus();
      field.select();
      hear(say("share_by_hand"), true);
    }, "duet-primary");
    // Out
    const choice = make("select", { on: { change: () => {
      clearLabel.hidden = choice.value !== "png";
      parts.about.textContent = say(`share_about_${choice.value}`);
    } } });
    for (const name of Object.keys(FORMS)) choice.append(make("option", { value: name, text: say(`share_${name}`) }));
    clear = make("input", { type: "checkbox" });
    const clearLabel = make("label", { className: "duet-note" }, clear, ` ${say("share_clear")}`);
    parts.about = make("p", { className: "duet-note", text: say("share_about_png") });
    const work = (what) => async (event) => {
      const pressed = event.currentTarget;
      pressed.disabled = true;
      hear(choice.value === "gif" ? say("share_making") : "");
      try { await what(choice.value); } catch (error) { hear(say(why(error)), true); }
      pressed.disabled = false;
      pressed.focus();
    };
    parts.save = button("share_save", work(async (name) => {
      const form = FORMS[name], content = await form.make(), as = `${fileName(duet.category() || "doodle")}.${form.ending || name}`;
      save(content, as, form.type);
      hear(say("share_saved", { name: as }));
    }));
    parts.copy = button("share_copy_it", work(async (name) => {
      const done = await copy(name);
      hear(done ? say("share_copied") : say(name === "gif" ? "share_no_gif" : "share_refused"), !done);
    }));
    // In
    const pick = make("input", { type: "file", accept: ".svg,.json,.ndjson,image/svg+xml,application/json", hidden: true, on: {
      change: async () => { await open(pick.files[0]); pick.value = ""; },
    } });
    // A set of one's own
    parts.word = make("input", { type: "text", maxLength: MOST_WORD, list: "duet-words", autocomplete: "off" });
    parts.words = make("datalist", { id: "duet-words" });
    parts.keep = button("set_keep", () => {
      const word = wordOf(parts.word.value) || "doodle";
      const done = keepSet([...collection.entries, quick(word)]);
      hear(done ? say("set_kept", { word }) : say("set_full"), !done);
      showSet();
    });
    parts.count = make("p", { className: "duet-note" });
    parts.download = button("set_download", () => {
      const words = new Set(collection.entries.map(({ word }) => word));
      const name = `${words.size === 1 ? fileName([...words][0]) : "my-doodles"}.ndjson`;
      save(lines(), name, "application/x-ndjson");
      hear(say("share_saved", { name }));
    });
    parts.empty = button("set_empty", () => { keepSet([]); hear(say("set_emptied")); showSet(); parts.undo.focus(); });
    parts.undo = button("set_undo", () => { undoSet(); hear(say("heard_undo")); showSet(); if (parts.undo.disabled) parts.keep.focus(); });
    parts.says = make("p", { className: "duet-share-says" });
    parts.says.setAttribute("role", "status");
    const title = make("h2", { text: say("share"), id: "duet-share-title" });
    dialog = make("dialog", { className: "duet-help duet-share" }, title,
      make("p", { className: "duet-note", text: say("share_note") }),
      make("div", { className: "duet-share-row" }, field, parts.link),
      make("h3", { text: say("share_out") }),
      make("div", { className: "duet-share-row" }, labelled("share_form", choice), parts.save, parts.copy),
      parts.about, clearLabel,
      make("h3", { text: say("share_in") }),
      make("div", { className: "duet-share-row" }, button("share_open", () => pick.click()), pick,
        make("p", { className: "duet-note", text: say("share_in_note") })),
      make("details", { className: "duet-set" }, make("summary", {}, make("h3", { text: say("set") }), parts.badge = make("b", {})),
        make("p", { className: "duet-note", text: say("set_note") }),
        make("div", { className: "duet-share-row" }, labelled("set_word", parts.word), parts.words, parts.keep), parts.count,
        make("div", { className: "duet-share-row" }, parts.download, parts.empty, parts.undo)),
      make("div", { className: "duet-share-foot" }, parts.says, button("close", () => dialog.close())));
    dialog.setAttribute("aria-labelledby", "duet-share-title");
    document.body.append(dialog);
  }

  function showSet() {
    const counts = new Map();
    for (const { word } of collection.entries) counts.set(word, (counts.get(word) || 0) + 1);
    const n = collection.entries.length;
    parts.badge.textContent = n || "";
    parts.count.textContent = n ? say("set_count", { n, words: [...counts].map(([word, k]) => `${duet.nameOf(word)} ${k}`).join(", ") }) : say("set_none");
    for (const each of [parts.download, parts.empty]) each.disabled = !n;
    parts.undo.disabled = !collection.before.length;
    parts.keep.disabled = !duet.strokes().length;
  }

  duet.share = () => {
    if (!dialog) build();
    const link = duet.link(), empty = !duet.strokes().length;
    field.value = link || "";
    parts.link.disabled = !link;
    for (const each of [parts.save, parts.copy]) each.disabled = empty;
    hear(link ? (empty ? say("share_empty") : "") : say("share_too_large"), !link);
    recallSet(); // another tab may have kept some
    parts.word.value = duet.category() || parts.word.value;
    const known = duet.network().categories;
    if (parts.words.childElementCount !== known.length) {
      parts.words.replaceChildren(...known.map((name) => make("option", { value: name, label: duet.nameOf(name) })));
    }
    showSet();
    if (!dialog.open) dialog.showModal();
  };
  duet.files = { svg, png, gif, json, stroke3, ndjson, read, open, set: lines };
})();
