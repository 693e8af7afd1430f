// Looking inside: a drawing point by point, with what the network expected at each. All numbers come from the server
// once (app.studio's "inspect"); temperature and steps are worked out here, so that both can be slid through.
(() => {
  const duet = window.doodleDuet;
  if (!duet || !duet.buildPanel || duet.modes.inside) return;
  const { say, settings, make } = duet;
  const PEN = ["down", "lift", "end"];
  const MAP = 96; // cells of the heat map along a side
  const TOPICS = ["y", "mixture", "rho", "temperature", "losses", "padding", "h0", "z"];

  let found = null, at = 0, playing = false, clock = 0, panel = null, table = null, map = null;
  const parts = {};

  const steps = () => (found ? found.pi.length : 0); // the last one is what it expects next

  // τ as the page's rule has it: π sharpened, σ² scaled, the pen as it was learned.
  function heated(t) {
    const heat = settings.temperature;
    const sharp = found.pi[t].map((p) => Math.pow(Math.max(p, 1e-12), 1 / heat));
    const sum = sharp.reduce((a, b) => a + b, 0);
    return { pi: sharp.map((p) => p / sum), root: Math.sqrt(heat) };
  }

  function heatMap(t) {
    const { pi, root } = heated(t);
    const values = new Float32Array(MAP * MAP), cell = duet.SIDE / MAP;
    pi.forEach((weight, j) => {
      if (weight < 1e-3) return;
      const [mx, my] = found.mu[t][j], rho = found.rho[t][j];
      // Narrower than a cell would fall between the cells.
      const sx = Math.max(found.sigma[t][j][0] * root, cell * 0.6), sy = Math.max(found.sigma[t][j][1] * root, cell * 0.6);
      const rest = 1 - rho * rho, norm = weight / (2 * Math.PI * sx * sy * Math.sqrt(rest));
      const x0 = Math.max(0, Math.floor((mx - 4 * sx) / cell)), x1 = Math.min(MAP - 1, Math.ceil((mx + 4 * sx) / cell));
      const y0 = Math.max(0, Math.floor((my - 4 * sy) / cell)), y1 = Math.min(MAP - 1, Math.ceil((my + 4 * sy) / cell));
      for (let y = y0; y <= y1; y++) for (let x = x0; x <= x1; x++) {
        const dx = ((x + 0.5) * cell - mx) / sx, dy = ((y + 0.5) * cell - my) / sy;
        values[y * MAP + x] += norm * Math.exp(-(dx * dx + dy * dy - 2 * rho * dx * dy) / (2 * rest));
      }
    });
    return values;
  }

  const rgb = (pad, name) => {
    const probe = document.createElement("canvas").getContext("2d");
    probe.fillStyle = duet.colour(pad, name);
    probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data];
  };

  function paintMap(context, pad, t) {
    const values = heatMap(t), highest = values.reduce((a, b) => Math.max(a, b), 1e-12);
    const small = map || (map = document.createElement("canvas"));
    small.width = small.height = MAP;
    const image = small.getContext("2d").createImageData(MAP, MAP), [r, g, b] = rgb(pad, "--duet-net");
    values.forEach((value, i) => {
      image.data.set([r, g, b, Math.round(200 * Math.pow(value / highest, 0.4))], 4 * i); // a root, or tails are unseen
    });
    small.getContext("2d").putImageData(image, 0, 0);
    context.drawImage(small, 0, 0, duet.SIDE, duet.SIDE);
    // Ellipses at one σ of the components, their opacity the weight.
    const { pi, root } = heated(t);
    pi.forEach((weight, j) => {
      if (weight < 0.02) return;
      const [mx, my] = found.mu[t][j], rho = found.rho[t][j];
      const sx = found.sigma[t][j][0] * root, sy = found.sigma[t][j][1] * root;
      const angle = 0.5 * Math.atan2(2 * rho * sx * sy, sx * sx - sy * sy);
      const mean = (sx * sx + sy * sy) / 2;
      const apart = Math.sqrt(((sx * sx - sy * sy) / 2) ** 2 + (rho * sx * sy) ** 2);
      context.globalAlpha = 0.25 + 0.75 * weight;
      context.strokeStyle = duet.colour(pad, "--duet-ink");
      context.lineWidth = 1.5;
      context.beginPath();
      context.ellipse(mx, my, Math.sqrt(mean + apart) + 1, Math.sqrt(Math.max(mean - apart, 0)) + 1, angle, 0, 2 * Math.PI);
      context.stroke();
    });
    context.globalAlpha = 1;
  }

  // Strokes of the points fed so far, and of those to come.
  function cut(t) {
    const before = [], after = [];
    let stroke = [found.pen[0]], lifted = false;
    for (let i = 1; i < steps(); i++) {
      const into = i <= t ? before : after;
      if (lifted) stroke = [found.pen[i]];
      else if (i === t + 1 && stroke.length) stroke = [found.pen[i - 1], found.pen[i]];
      else stroke.push(found.pen[i]);
      if (into[into.length - 1] !== stroke) into.push(stroke);
      lifted = found.stroke5[i][3] > 0.5;
    }
    return { before, after };
  }

  const dot = (context, [x, y], size) => { context.beginPath(); context.arc(x, y, size, 0, 2 * Math.PI); };

  function paint(context, pad, time) {
    if (!found) { duet.ink(context, pad, duet.strokes()); return; }
    if (playing) {
      if (clock && time - clock > 420) { clock = time; go(at + 1 < steps() ? at + 1 : 0); if (at === steps() - 1) setPlaying(false); }
      clock = clock || time;
      duet.redraw();
    }
    const { before, after } = cut(at);
    paintMap(context, pad, at);
    context.globalAlpha = 0.18;
    duet.ink(context, pad, after.map((points) => ({ by: "hand", points })));
    context.globalAlpha = 1;
    duet.ink(context, pad, before.map((points) => ({ by: "hand", points })));
    const pen = found.pen[at];
    if (at + 1 < steps()) { // what came
      const to = found.pen[at + 1];
      context.strokeStyle = duet.colour(pad, "--duet-came");
      context.lineWidth = 3;
      context.setLineDash([6, 5]);
      context.beginPath();
      context.moveTo(...pen);
      context.lineTo(...to);
      context.stroke();
      context.setLineDash([]);
      context.fillStyle = duet.colour(pad, "--duet-came");
      dot(context, to, 6);
      context.fill();
    }
    context.fillStyle = duet.colour(pad, "--duet-paper");
    context.strokeStyle = duet.colour(pad, "--duet-ink");
    context.lineWidth = 3;
    dot(context, pen, 6);
    context.fill();
    context.stroke();
  }

  // --- the panel -------------------------------------------------------------------------------------
  function build(element) {
    panel = element;
    const button = (key, text, click) => make("button", {
      type: "button", className: "duet-tool duet-small", text, title: say(key), "aria-label": say(key), on: { click },
    });
    parts.scrub = make("input", { type: "range", min: 0, max: 0, value: 0, className: "duet-scrub",
      on: { input: () => { setPlaying(false); go(Number(parts.scrub.value)); } } });
    parts.scrub.setAttribute("aria-label", say("inside_step_label"));
    parts.play = button("play", say("play"), () => setPlaying(!playing));
    parts.where = make("span", { className: "duet-hint" });
    parts.empty = make("p", { className: "duet-note", text: say("inside_empty") });
    parts.sentence = make("p", { className: "duet-sentence" });
    parts.bars = PEN.map((name) => {
      const bar = make("i"), value = make("b");
      const row = make("div", { className: "duet-bar" }, make("span", { text: say(`pen_${name}`) }), make("div", {}, bar), value);
      return { row, bar, value };
    });
    parts.loss = make("div", { className: "duet-loss" });
    parts.z = make("canvas", { className: "duet-z", role: "img" });
    parts.z.setAttribute("aria-label", say("inside_z"));
    table = make("tbody");
    const headings = make("tr", {}, ...["t", "Δx", "Δy", "p₁", "p₂", "p₃", "Lₛ", "Lₚ"].map((text) => make("th", { text, scope: "col" })));
    parts.rows = make("div", { className: "duet-rows", tabIndex: 0 }, make("table", {}, make("thead", {}, headings), table));
    parts.rows.setAttribute("aria-label", say("inside_rows"));
    parts.rows.setAttribute("role", "region");
    parts.body = make("div", { hidden: true },
      make("div", { className: "duet-transport" },
        button("inside_first", "|◀", () => go(0)), button("inside_back", "◀", () => go(at - 1)), parts.play,
        button("inside_on", "▶", () => go(at + 1)), button("inside_last", "▶|", () => go(steps() - 1)), parts.where),
      parts.scrub, parts.sentence,
      make("div", { className: "duet-inside" },
        make("div", {}, make("h3", { text: say("inside_pen") }), ...parts.bars.map((bar) => bar.row),
          make("h3", { text: say("inside_loss") }), parts.loss),
        make("div", {}, make("h3", { text: say("inside_rows") }), parts.rows)),
      make("h3", { text: say("inside_z") }), parts.z);
    const topics = TOPICS.map((topic) => make("details", {},
      make("summary", { text: say(`why_${topic}`) }), make("p", { text: say(`because_${topic}`) })));
    panel.append(make("div", { className: "duet-gallery-head" }, make("h2", { text: say("inside_title") })),
      parts.empty, parts.body, make("h3", { text: say("inside_paper") }), ...topics);
  }

  function setPlaying(on) {
    playing = on && steps() > 1;
    if (playing && at === steps() - 1) go(0);
    clock = 0;
    parts.play.textContent = say(playing ? "pause" : "play");
    parts.play.setAttribute("aria-label", parts.play.textContent);
    duet.redraw();
  }

  function go(t) {
    if (!found) return;
    at = Math.min(Math.max(0, t), steps() - 1);
    show();
    duet.redraw();
  }

  const number = (value, digits = 2) => value.toFixed(digits).replace("-", "−");

  function show() {
    const last = at === steps() - 1, came = last ? null : found.stroke5[at + 1];
    parts.scrub.max = steps() - 1;
    parts.scrub.value = at;
    parts.where.textContent = say("inside_where", { t: at + 1, n: steps() });
    const state = came ? came.slice(2).indexOf(Math.max(...came.slice(2))) : -1;
    parts.bars.forEach(({ row, bar, value }, k) => {
      const share = found.pen_probabilities[at][k];
      bar.style.width = `${100 * share}%`;
      value.textContent = `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;
      row.classList.toggle("duet-came", k === state);
    });
    const sum = (values, upTo) => values.slice(0, upTo).reduce((a, b) => a + b, 0);
    const n = found.l_s.length;
    parts.loss.replaceChildren(...[
      ["Lₛ", came ? number(found.l_s[at]) : "–", number(sum(found.l_s, Math.min(at + 1, n))), number(sum(found.l_s, n))],
      ["Lₚ", came ? number(found.l_p[at]) : "–", number(sum(found.l_p, Math.min(at + 1, n))), number(sum(found.l_p, n))],
    ].map(([name, here, sofar, all]) => make("p", { text: say("inside_losses", { name, here, sofar, all }) })));
    const { pi, root } = heated(at);
    const best = pi.indexOf(Math.max(...pi)), many = pi.filter((p) => p > 0.02).length;
    parts.sentence.textContent = say(last ? "inside_next" : "inside_sentence", {
      many, best: Math.round(100 * pi[best]), pen: say(`pen_${PEN[Math.max(state, 0)]}`),
      chance: came ? (100 * found.pen_probabilities[at][state]).toFixed(0) : "",
      surprise: came ? say(found.l_s[at] + found.l_p[at] > 2 ? "inside_surprised" : found.l_s[at] + found.l_p[at] < -1
        ? "inside_foreseen" : "inside_fair") : "",
      heat: number(settings.temperature), root: number(root),
    });
    // Step t reads one row and expects the next: both are marked, in the colours they have on the pad.
    [...table.children].forEach((row, i) => {
      row.classList.toggle("duet-here", i === at);
      row.classList.toggle("duet-next", i === at + 1);
    });
    const row = table.children[at];
    if (row) {
      const box = parts.rows;
      box.scrollTop = row.offsetTop - box.clientHeight / 2;
    }
  }

  function fillTable() {
    table.replaceChildren(...found.stroke5.map((row, t) => make("tr", { on: { click: () => go(t) } },
      ...[String(t), number(row[0]), number(row[1]), ...row.slice(2).map((p) => String(Math.round(p))),
        t ? number(found.l_s[t - 1]) : "", t ? number(found.l_p[t - 1]) : ""].map((text) => make("td", { text })))));
  }

  function paintZ() {
    const canvas = parts.z, ratio = window.devicePixelRatio || 1;
    const wide = Math.round(canvas.clientWidth * ratio), high = Math.round(canvas.clientHeight * ratio);
    if (!wide || !found) return;
    canvas.width = wide;
    canvas.height = high;
    const context = canvas.getContext("2d"), n = found.z_mu.length || 1, step = wide / n, unit = high / 6; // ±3
    const clamp = (value) => Math.max(-3, Math.min(3, value));
    found.z_mu.forEach((mu, i) => {
      context.fillStyle = duet.colour(canvas, "--duet-net");
      context.fillRect(i * step, high / 2, Math.max(1, step - ratio), -clamp(mu) * unit);
      context.fillStyle = duet.colour(canvas, "--duet-ink");
      const sigma = found.z_sigma[i];
      context.fillRect(i * step + step / 2 - ratio / 2, high / 2 - clamp(mu + sigma) * unit, ratio, 2 * Math.min(sigma, 3) * unit);
    });
  }

  async function look() {
    const strokes = duet.strokes();
    setPlaying(false);
    parts.empty.hidden = strokes.length > 0;
    parts.body.hidden = !found || !strokes.length;
    if (!strokes.length) { found = null; duet.tell("say_start"); duet.redraw(); return; }
    duet.tell("thinking", {}, "busy");
    const answer = await duet.ask({ do: "inspect", strokes: duet.thinned(strokes), category: duet.category() });
    if (!answer) return;
    if (answer.error) {
      found = null;
      parts.body.hidden = true;
      duet.tell(say(`error_${answer.error}`) === `error_${answer.error}` ? answer.message || answer.error : `error_${answer.error}`, {}, "warn");
      return;
    }
    found = answer.found;
    parts.body.hidden = false;
    fillTable();
    go(at && at < steps() ? at : Math.floor(steps() / 2));
    requestAnimationFrame(paintZ);
    duet.tell("say_inside");
  }

  duet.modes.inside = {
    enter: look,
    leave() { setPlaying(false); found = null; at = 0; },
    change(what) { // the temperature changes nothing that came from the server
      if (what !== "drawing" && !what.includes("category")) { if (found) { show(); duet.redraw(); } return; }
      look();
    },
    press(event) {
      if (event.key === "ArrowLeft") go(at - 1);
      else if (event.key === "ArrowRight") go(at + 1);
      else if (event.key === " ") { event.preventDefault(); setPlaying(!playing); }
    },
    paint,
  };
  duet.buildPanel("inside", build);
  // For tests and curious people.
  duet.inside = () => (found ? { at, steps: steps(), found } : null);
})();
