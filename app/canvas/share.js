// Sharing: a link that carries the drawing and the settings in its fragment (which no server ever sees), and files.
//
// #v=1&m=finish&c=cat&t=0.4&s=7&n=9&f=0.5&d=…: mode, category, temperature, seed, how many, how far, drawing. The drawing
// is bytes in base64url: for each stroke a varint (2 x points + who), then each point as zig-zag varints of its step from
// the one before, in tenths of a pad unit, which is what points are rounded to when drawn: nothing is lost.
(() => {
  const duet = window.doodleDuet;
  if (!duet || duet.link) return;
  const { say, make, settings } = duet;
  const GRID = 10, VERSION = "1", MOST_POINTS = 2000, MOST_STROKES = 400, FAR = 4096, LONGEST = 40000;
  const MODES = ["finish", "vary", "compare", "blend", "dream", "inside"];

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

  duet.link = () => {
    const values = new URLSearchParams({
      v: VERSION, m: settings.mode, t: settings.temperature, s: settings.seed, n: settings.n, f: settings.spread,
    });
    if (settings.category) values.set("c", settings.category);
    if (duet.model()) values.set("k", duet.model());
    values.set("d", encode(duet.strokes()));
    return `${location.href.split("#")[0]}#${values}`;
  };

  // What a fragment says: null for none of ours, an error for a damaged one.
  function parse(fragment) {
    const values = new URLSearchParams(fragment.replace(/^#/, ""));
    if (!values.has("v") || !values.has("d")) return null;
    if (values.get("v") !== VERSION) throw new Error("version");
    const number = (name, low, high, usual) => {
      if (!values.has(name)) return usual;
      const value = Number(values.get(name));
      if (!(value >= low && value <= high)) throw new Error("damaged");
      return value;
    };
    const mode = values.get("m") || "finish", category = values.get("c");
    // A network that is not here is no damage: the usual one goes on from the same strokes.
    const models = window.doodleDuetModels || [], found = models.find(({ name }) => name === values.get("k")) || models[0];
    const known = found ? found.categories : [];
    if (!MODES.includes(mode) || (category && category !== duet.AUTO && !known.includes(category))) throw new Error("damaged");
    return {
      strokes: decode(values.get("d")),
      settings: {
        mode, category, model: found ? found.name : null, temperature: number("t", 0.1, 1, 0.4), seed: Math.floor(number("s", 0, 2147483647, 0)),
        n: Math.floor(number("n", 1, 9, 9)), spread: number("f", 0, 2, 0.5),
      },
    };
  }

  // Called by the pad before anything else is shown: {strokes, settings}, or null.
  duet.opened = () => {
    try {
      return parse(location.hash);
    } catch {
      return { damaged: true };
    }
  };
  window.addEventListener("hashchange", () => {
    const opened = duet.opened();
    if (!opened) return;
    if (opened.damaged) { duet.tell("say_damaged", {}, "warn"); return; }
    duet.put(opened.strokes);
    duet.choose(opened.settings);
    duet.tell("say_opened");
  });

  // --- files -----------------------------------------------------------------------------------------
  const INK = { hand: "#1f2430", net: "#c2410c" }, WIDTH = { hand: 5, net: 3.6 };

  function svg() {
    const number = (value) => Number(value.toFixed(2));
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
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${duet.SIDE} ${duet.SIDE}" fill="none" stroke-linecap="round" stroke-linejoin="round">${paths.join("")}</svg>\n`;
  }

  function png(clear) {
    const canvas = make("canvas", { width: 1024, height: 1024 }), context = canvas.getContext("2d");
    if (!clear) { context.fillStyle = "#ffffff"; context.fillRect(0, 0, 1024, 1024); }
    context.scale(1024 / duet.SIDE, 1024 / duet.SIDE);
    context.lineCap = context.lineJoin = "round";
    for (const { by, points } of duet.strokes()) {
      context.strokeStyle = INK[by];
      context.lineWidth = WIDTH[by];
      duet.trace(context, points);
    }
    return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
  }

  // A line of Quick, Draw!'s simplified ndjson: whole numbers from 0 to 255.
  function ndjson() {
    const strokes = duet.strokes(), all = strokes.flatMap((s) => s.points);
    const low = [0, 1].map((k) => Math.min(...all.map((p) => p[k]))), high = [0, 1].map((k) => Math.max(...all.map((p) => p[k])));
    const scale = 255 / Math.max(high[0] - low[0], high[1] - low[1], 1);
    const drawing = strokes.map(({ points }) => [0, 1].map((k) => points.map((p) => Math.round((p[k] - low[k]) * scale))));
    return `${JSON.stringify({ word: duet.category() || "anything", recognized: true, drawing })}\n`;
  }

  function save(content, name, type) {
    const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // Strokes of a file: [[[x, y], ...], ...], this page's own JSON, or a Quick, Draw! line; fitted to the pad.
  function read(text) {
    const first = text.trim().split("\n")[0];
    let value;
    try { value = JSON.parse(text); } catch { value = JSON.parse(first); }
    let strokes = Array.isArray(value) ? value : value.strokes || value.drawing;
    if (!Array.isArray(strokes) || !strokes.length || strokes.length > MOST_STROKES) throw new Error("damaged");
    strokes = strokes.map((stroke) => {
      if (stroke && Array.isArray(stroke.points)) return stroke;
      if (!Array.isArray(stroke)) throw new Error("damaged");
      // Quick, Draw!: [[x, ...], [y, ...]], with times in some files.
      const columns = Array.isArray(value.drawing) && Array.isArray(stroke[0]) && Array.isArray(stroke[1]);
      return { by: "hand", points: columns ? stroke[0].map((x, i) => [x, stroke[1][i]]) : stroke };
    });
    const all = strokes.flatMap((s) => s.points);
    if (!all.length || all.length > MOST_POINTS || !strokes.every((s) => s.points.length)
      || !all.every((p) => Array.isArray(p) && Number.isFinite(p[0]) && Number.isFinite(p[1]) && Math.abs(p[0]) < 1e6 && Math.abs(p[1]) < 1e6)) {
      throw new Error("damaged");
    }
    const low = [0, 1].map((k) => Math.min(...all.map((p) => p[k]))), high = [0, 1].map((k) => Math.max(...all.map((p) => p[k])));
    const inside = low[0] >= 0 && low[1] >= 0 && high[0] <= duet.SIDE && high[1] <= duet.SIDE && !value.drawing;
    const side = Math.max(high[0] - low[0], high[1] - low[1], 1), scale = inside ? 1 : (0.8 * duet.SIDE) / side;
    const fit = (p, k) => Math.round(10 * (inside ? p[k] : (p[k] - (low[k] + high[k]) / 2) * scale + duet.SIDE / 2)) / 10;
    return strokes.map((s) => ({ by: s.by === "net" ? "net" : "hand", points: s.points.map((p) => [fit(p, 0), fit(p, 1)]) }));
  }

  // --- the dialog ------------------------------------------------------------------------------------
  let dialog = null, field = null;
  duet.share = () => {
    if (!dialog) {
      const button = (key, click) => make("button", { type: "button", className: "duet-tool", text: say(key), on: { click } });
      field = make("input", { type: "text", readOnly: true, on: { focus: () => field.select() } });
      field.setAttribute("aria-label", say("share_link"));
      const copied = make("span", { className: "duet-hint" });
      copied.setAttribute("aria-live", "polite");
      const copy = button("share_copy", async () => {
        try {
          await navigator.clipboard.writeText(field.value);
          copied.textContent = say("share_copied");
        } catch { // refused, as in some frames: it is marked, so that Ctrl+C does
          field.select();
          copied.textContent = say("share_by_hand");
        }
      });
      const pick = make("input", { type: "file", accept: ".json,.ndjson", hidden: true, on: { change: async () => {
        try {
          duet.put(read(await pick.files[0].text()));
          dialog.close();
        } catch { copied.textContent = say("share_unread"); }
        pick.value = "";
      } } });
      const clear = make("input", { type: "checkbox" });
      dialog = make("dialog", { className: "duet-help duet-share" }, make("h2", { text: say("share") }),
        make("p", { className: "duet-note", text: say("share_note") }),
        make("div", { className: "duet-share-row" }, field, copy), copied,
        make("h3", { text: say("share_files") }),
        make("div", { className: "duet-share-row" },
          button("share_svg", () => save(svg(), "doodle.svg", "image/svg+xml")),
          button("share_png", async () => save(await png(clear.checked), "doodle.png", "image/png")),
          button("share_json", () => save(`${JSON.stringify({ strokes: duet.drawing() })}\n`, "doodle.json", "application/json")),
          button("share_ndjson", () => save(ndjson(), "doodle.ndjson", "application/x-ndjson")),
          button("share_open", () => pick.click()), pick),
        make("label", { className: "duet-note" }, clear, ` ${say("share_clear")}`),
        button("close", () => dialog.close()));
      document.body.append(dialog);
      dialog.says = copied;
    }
    dialog.says.textContent = "";
    field.value = duet.link();
    if (!dialog.open) dialog.showModal();
  };
  duet.files = { svg, ndjson, read };
})();
