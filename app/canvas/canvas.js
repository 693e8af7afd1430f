// The drawing pad: strokes in, endings out. Knows nothing of Gradio: page.py's glue hands it elements and settings.
// Coordinates are pad units, a square of SIDE whatever the screen. A drawing is a list of
// {by: "hand" | "net", points: [[x, y, ms, pressure], ...]}; points of the network are [x, y].
(() => {
  if (window.doodleDuet) return;

  const SIDE = 512;
  const MIN_DISTANCE = 1.2; // closer points say nothing new
  const MAX_SENT = 2000;
  const PEN_SPEED = 1.1; // pad units a millisecond, of the network's pen
  const STORE = "doodle-duet-drawing";
  const RETRY = [500, 1000, 2000, 4000, 8000];
  const CORNER = Math.cos(Math.PI / 3); // sharper turns stay corners
  const WIDTH = { hand: 5, net: 3.6 };

  const words = window.doodleDuetWords || { en: {} };
  const language = (window.doodleDuetChinese || []).includes(navigator.language) ? "zh-CN" : "en";
  document.documentElement.lang = language;
  const say = (key, values = {}) =>
    ((words[language] || {})[key] || (words.en || {})[key] || key).replace(/\{(\w+)\}/g, (_, name) => values[name]);

  const settings = { mode: "finish", category: null, temperature: 0.4, seed: 0, n: 9, spread: 0.5, model: null };
  // Networks: {name, categories, lacks: {what: why}}, the first one the usual. Others may come while the page is open.
  const models = () => window.doodleDuetModels || [];
  if (models().length) settings.model = models()[0].name;
  const network = () => models().find((each) => each.name === settings.model) || models()[0] || { categories: [], lacks: {} };
  const model = () => (settings.model && models().length && settings.model !== models()[0].name ? settings.model : undefined);
  const KEPT = "doodle-duet-settings";
  const AUTO = "auto"; // the category that stands for the network's own guess
  // Modes of other files: {enter(), leave(), change(what), press(event), paint(context)}; each is optional.
  const modes = {};
  const modeNow = () => modes[settings.mode] || null;
  const stillness = window.matchMedia("(prefers-reduced-motion: reduce)");

  let pad = null, gallery = null, status = null, live = null, invitation = null;
  let guesses = null;
  const buttons = {};

  // --- the drawing and its history -----------------------------------------------------------------
  let history = [[]];
  let now = 0;
  let stroke = null; // the one under the pen
  let pointer = null;
  const drawing = () => history[now];
  const isEmpty = () => !drawing().length && !stroke;

  function commit(strokes) {
    leaveLink();
    history = history.slice(0, now + 1).concat([strokes]);
    if (history.length > 200) history.shift();
    now = history.length - 1;
    remember();
  }

  function remember() {
    try { localStorage.setItem(STORE, JSON.stringify(drawing())); } catch { /* private window or full: go on */ }
  }

  function recall() {
    try {
      const kept = JSON.parse(localStorage.getItem(STORE) || "[]");
      const sound = Array.isArray(kept) && kept.every((s) => s && Array.isArray(s.points) && s.points.length
        && s.points.every((p) => Array.isArray(p) && p.length >= 2 && p.every(Number.isFinite)));
      if (!sound || !kept.length) return;
      history = [[], kept.map((s) => ({ by: s.by === "net" ? "net" : "hand", points: s.points }))];
      now = 1;
      tell("say_restored");
    } catch { /* damaged: start empty */ }
  }

  // A drawing that came with the link, and with it the endings one of which was taken; undo brings back one's own.
  let linked = null; // {drawing, base, taken, shown, guessed, settings, notice, names, settled}
  function openLink() {
    const opened = window.doodleDuet.opened && window.doodleDuet.opened();
    if (!opened) return null;
    if (opened.damaged) { // empty, but what is remembered stays
      history = history.slice(0, now + 1).concat([[]]);
      now = history.length - 1;
      warning = opened.version ? "say_version" : "say_damaged";
      linked = { drawing: drawing() };
      return opened;
    }
    commit(opened.strokes);
    linked = { ...opened, drawing: drawing(), base: opened.base || drawing() };
    tell(opened.notice, opened.names);
    return opened;
  }
  // What the link said still holds: nobody has drawn or chosen anything since.
  const linkHolds = () => Boolean(linked && linked.settings && drawing() === linked.drawing && settings.mode === linked.settings.mode);
  // The address says what is on the page, or nothing: a reload must not bring back what has been drawn over.
  function leaveLink() {
    if (!linked) return;
    linked = null;
    window.history.replaceState(window.history.state, "", location.pathname + location.search);
  }
  function heedLink() {
    if (!linked || !linked.settings) return;
    const same = Object.entries(linked.settings).every(([name, value]) => settings[name] === value);
    if (same) linked.settled = true;
    else if (linked.settled) leaveLink();
  }
  // The address was changed by hand, or by a link within the page.
  function followLink() {
    if (stroke) return;
    const opened = openLink();
    if (!opened) return;
    think();
    if (opened.settings) choose(opened.settings);
  }
  let warning = null; // shown until the next drawing

  function step(by, heard) {
    const to = now + by;
    if (to < 0 || to >= history.length || stroke) return;
    leaveLink();
    now = to;
    remember();
    announce(heard);
    think();
  }

  // --- drawing with the pen ------------------------------------------------------------------------
  const round = (value) => Math.round(value * 10) / 10;

  // Deleting a stroke: the one under the pen, if any.
  let erasing = false;
  function erase(event) {
    const box = pad.getBoundingClientRect();
    const x = ((event.clientX - box.left) * SIDE) / box.width, y = ((event.clientY - box.top) * SIDE) / box.height;
    const strokes = drawing();
    for (let i = strokes.length - 1; i >= 0; i--) {
      if (distanceTo(strokes[i].points, x, y) > 12) continue;
      commit(strokes.filter((_, k) => k !== i));
      announce("heard_erased");
      if (!drawing().length) setErasing(false); // nothing is left to erase: the pen draws again
      think();
      return;
    }
  }

  function distanceTo(points, x, y) {
    let least = Infinity;
    points.forEach(([x1, y1], i) => {
      const [x0, y0] = points[Math.max(0, i - 1)], dx = x1 - x0, dy = y1 - y0;
      const t = Math.min(1, Math.max(0, ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1)));
      least = Math.min(least, Math.hypot(x - x0 - t * dx, y - y0 - t * dy));
    });
    return least;
  }

  function setErasing(on) {
    erasing = on;
    pad.classList.toggle("duet-erasing", on);
    buttons.erase.setAttribute("aria-pressed", String(on));
    if (on) tell("say_erase");
    else tellState();
  }

  // Showing how the drawing came about, faster at each press.
  let replay = null; // {speed, shown, last}
  function startReplay() {
    if (!drawing().length) return;
    const speed = replay ? { 1: 2, 2: 4 }[replay.speed] : 1;
    replay = speed ? { speed, shown: replay ? replay.shown : 0, last: 0 } : null;
    if (replay) tell("say_replay", { speed });
    redraw();
  }
  function stopReplay() {
    if (!replay) return;
    replay = null;
    tellState();
    redraw();
  }

  function place(event) {
    const box = pad.getBoundingClientRect();
    const clamp = (value) => Math.min(SIDE, Math.max(0, value));
    return [
      round(clamp(((event.clientX - box.left) * SIDE) / box.width)),
      round(clamp(((event.clientY - box.top) * SIDE) / box.height)),
      Math.round(event.timeStamp - stroke.begun),
      round(event.pressure || 0),
    ];
  }

  function extend(event) {
    const points = stroke.points;
    const [x, y, ms, pressure] = place(event);
    const last = points[points.length - 1];
    if (last && Math.hypot(x - last[0], y - last[1]) < MIN_DISTANCE) return;
    points.push([x, y, ms, pressure]);
  }

  function penDown(event) {
    if (pointer !== null || (event.pointerType === "mouse" && event.button !== 0)) return;
    event.preventDefault();
    pointer = event.pointerId;
    try { pad.setPointerCapture(pointer); } catch { /* a synthetic pointer */ }
    if (erasing) { erase(event); return; }
    stopReplay();
    cancel();
    warning = null;
    stroke = { by: "hand", points: [], begun: event.timeStamp };
    extend(event);
    if (invitation) invitation.hidden = true;
    redraw();
  }

  function penMove(event) {
    if (event.pointerId === pointer && erasing) erase(event);
    if (event.pointerId !== pointer || !stroke) return;
    const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const each of events.length ? events : [event]) extend(each);
    redraw();
  }

  function penUp(event) {
    if (event.pointerId !== pointer) return;
    pointer = null;
    if (!stroke) return;
    const points = stroke.points;
    stroke = null;
    if (points.length) commit([...drawing(), { by: "hand", points }]);
    think();
  }

  // --- asking the network --------------------------------------------------------------------------
  let socket = null, tries = 0, waiting = null, retry = null;
  let nextId = 1;
  let turn = null; // {id, kind, base, results: [strokes], ended: [bool], done, shown, revealed, taken, error}

  function thinned(strokes) {
    const total = strokes.reduce((sum, s) => sum + s.points.length, 0);
    const stride = Math.max(1, Math.ceil(total / (MAX_SENT * 0.9)));
    return strokes.map((s) => s.points
      .filter((_, i) => i % stride === 0 || i === s.points.length - 1)
      .map(([x, y]) => [x, y]));
  }

  function connect() {
    const folder = location.pathname.replace(/[^/]*$/, "");
    socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${folder}live`);
    socket.onopen = () => {
      if (tries) announce("heard_online");
      tries = 0;
      if (turn && !turn.done) send(turn);
      else tellState();
    };
    socket.onmessage = (event) => receive(JSON.parse(event.data));
    socket.onclose = () => {
      socket = null;
      tell("say_offline", {}, "warn");
      clearTimeout(waiting);
      waiting = setTimeout(connect, RETRY[Math.min(tries++, RETRY.length - 1)]);
    };
  }

  function send(asked) {
    asked.results = Array.from({ length: asked.n }, () => []);
    asked.ended = Array(asked.n).fill(false);
    asked.revealed = 0;
    if (!socket || socket.readyState !== WebSocket.OPEN) return; // asked again once connected
    socket.send(JSON.stringify({
      id: asked.id, do: asked.kind, model: model(), strokes: thinned(asked.base), category: category(),
      temperature: settings.temperature, seed: settings.seed, n: asked.n, spread: settings.spread,
    }));
  }

  function cancel() {
    clearTimeout(retry);
    if (turn && !turn.done && socket && socket.readyState === WebSocket.OPEN) {
      socket.send(JSON.stringify({ cancel: turn.id }));
    }
    turn = null;
    refresh();
  }

  let guessed = null; // the category that the network takes the drawing for, while it may choose
  const category = () => {
    const name = settings.category === AUTO ? guessed : settings.category;
    return network().categories.includes(name) ? name : null;
  };

  // What the network takes the drawing for, asked beside the endings; another answer than before asks for new ones.
  async function guessAgain() {
    const base = linkHolds() ? linked.base : drawing(), then = drawing();
    const found = await window.doodleDuet.ask({ do: "guess", strokes: thinned(base) });
    if (then !== drawing() || settings.category !== AUTO || !found || found.error) return;
    showGuesses(found.found);
    if (found.found[0][0] !== guessed) { guessed = found.found[0][0]; think(false); }
  }

  function showGuesses(found) {
    if (!guesses) return;
    guesses.hidden = !found;
    guesses.querySelectorAll("button").forEach((button, i) => {
      button.hidden = !found || !found[i];
      if (!found || !found[i]) return;
      const [name, share] = found[i];
      button.textContent = `${nameOf(name)} ${Math.round(share * 100)}%`;
      button.onclick = () => choose({ category: name });
    });
  }
  const nameOf = (name) => (language === "zh-CN" && (window.doodleDuetNames || {})[name]) || name;

  function think(guessing = true) {
    cancel();
    if (settings.category !== AUTO || !drawing().length) { guessed = null; showGuesses(null); }
    const mode = modeNow();
    if (mode) { if (mode.change) mode.change("drawing"); refresh(); return; }
    if (settings.category === AUTO && linkHolds() && !guessed) guessed = linked.guessed;
    if (settings.category === AUTO && drawing().length && guessing && !network().lacks.guess) guessAgain();
    if (!drawing().length) { tellState(); refresh(); return; }
    turn = {
      id: nextId++, kind: settings.mode === "vary" ? "vary" : "complete", base: drawing(), n: settings.n,
      done: false, shown: 0, taken: null, clock: 0,
    };
    if (linkHolds()) {
      const { base, shown, taken } = linked;
      Object.assign(turn, { base, shown: Math.min(shown, turn.n - 1), taken: taken < turn.n ? taken : null });
    }
    send(turn);
    tellState();
    refresh();
  }

  function receive(message) {
    // No id: the server could not read a request, or had no room for the connection. It concerns the one waiting.
    const anonymous = message.type === "error" && message.id === null;
    if (!turn || (message.id !== turn.id && !anonymous)) return; // stale: they drew on
    if (message.type === "points") {
      for (const [k, x, y, pen] of message.rows) {
        const strokes = turn.results[k];
        if (pen === 0) strokes.push([[x, y]]);
        else if (pen === 1) strokes[strokes.length - 1].push([x, y]);
        else turn.ended[k] = true;
      }
    } else if (message.type === "done") {
      turn.results = message.drawings;
      turn.ended = turn.ended.map(() => true);
      turn.done = true;
      announce(turn.kind === "vary" ? "heard_variations" : "heard_endings", { n: turn.n });
      tellState();
    } else if (message.type === "error") {
      turn.done = true;
      turn.error = true;
      const known = say(`error_${message.code}`);
      tell(known === `error_${message.code}` ? message.message : `error_${message.code}`, {}, "warn");
      if (message.code === "busy" || message.code === "slow_down") retry = setTimeout(think, 1500);
    }
    refresh();
  }

  // All of an ending, or its first stroke alone.
  function take(k, whole = true) {
    if (!turn || !turn.results[k] || !turn.ended[k] || stroke) return;
    const strokes = turn.results[k].slice(0, whole ? undefined : 1).map((points) => ({ by: "net", points }));
    if (!strokes.length) return;
    if (!whole) {
      commit([...turn.base, ...strokes]);
      announce("say_next");
      think();
      return;
    }
    const all = turn.kind === "vary" ? strokes : [...turn.base, ...strokes], { scale, shift } = inside(all);
    commit(scale === 1 ? all : all.map(({ by, points }) => (
      { by, points: points.map(([x, y, ...rest]) => [round(x * scale + shift), round(y * scale + shift), ...rest]) })));
    turn.taken = k;
    turn.shown = k;
    turn.revealed = Infinity;
    tell(turn.kind === "vary" ? "say_put" : "say_taken");
    announce(turn.kind === "vary" ? "say_put" : "say_taken");
    refresh();
  }

  // --- words under the pad -------------------------------------------------------------------------
  function tell(key, values = {}, tone = "") {
    if (!status) return;
    status.textContent = say(key, values);
    status.dataset.tone = tone;
  }

  function announce(key, values = {}) {
    if (live && key) live.textContent = say(key, values);
  }

  function tellState() {
    if (!socket && tries) return tell("say_offline", {}, "warn");
    if (!drawing().length && warning) { tell(warning, {}, "warn"); return undefined; }
    if (!drawing().length) return tell("say_start");
    if (!turn || turn.error) return undefined;
    if (!turn.done) return tell("thinking", {}, "busy");
    if (linkHolds()) return tell(linked.notice, linked.names);
    if (turn.kind === "vary") return tell("say_varied");
    return tell(turn.results.some((strokes) => strokes.length) ? "say_ready" : "say_finished");
  }

  // --- pictures ------------------------------------------------------------------------------------
  const colour = (element, name) => getComputedStyle(element).getPropertyValue(name).trim() || "#888";

  // Catmull-Rom through the points, as Bézier curves; sharp turns stay corners.
  function trace(context, points) {
    context.beginPath();
    context.moveTo(points[0][0], points[0][1]);
    if (points.length === 1) context.lineTo(points[0][0] + 0.01, points[0][1]);
    const tangent = (i) => {
      const before = points[i - 1], at = points[i], after = points[i + 1];
      if (!before || !after) return [0, 0];
      const ax = at[0] - before[0], ay = at[1] - before[1], bx = after[0] - at[0], by = after[1] - at[1];
      const a = Math.hypot(ax, ay), b = Math.hypot(bx, by);
      if (!a || !b || (ax * bx + ay * by) / (a * b) < CORNER) return [0, 0];
      const limit = Math.min(1, (2 * Math.min(a, b)) / (a + b)); // long beside short: no overshoot
      return [((ax + bx) / 6) * limit, ((ay + by) / 6) * limit];
    };
    let from = tangent(0);
    for (let i = 1; i < points.length; i++) {
      const to = tangent(i), p = points[i - 1], q = points[i];
      context.bezierCurveTo(p[0] + from[0], p[1] + from[1], q[0] - to[0], q[1] - to[1], q[0], q[1]);
      from = to;
    }
    context.stroke();
  }

  function begin(canvas) {
    const size = Math.round(canvas.clientWidth * (window.devicePixelRatio || 1));
    if (!size) return null;
    if (canvas.width !== size) { canvas.width = size; canvas.height = size; }
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, size, size);
    context.lineCap = "round";
    context.lineJoin = "round";
    context.setTransform(size / SIDE, 0, 0, size / SIDE, 0, 0);
    return context;
  }

  function ink(context, canvas, strokes, thicker = 1) {
    for (const { by, points } of strokes) {
      context.strokeStyle = colour(canvas, by === "net" ? "--duet-net" : "--duet-ink");
      context.lineWidth = WIDTH[by] * thicker;
      trace(context, points);
    }
  }

  const lengthOf = (points) => points.reduce(
    (sum, p, i) => sum + (i ? Math.hypot(p[0] - points[i - 1][0], p[1] - points[i - 1][1]) : 8), 0);

  // The first `amount` pad units of ink of some strokes.
  function partOf(strokes, amount) {
    const part = [];
    for (const points of strokes) {
      if (amount <= 0) break;
      const length = lengthOf(points);
      if (length <= amount) { part.push(points); amount -= length; continue; }
      const kept = [points[0]];
      amount -= 8;
      for (let i = 1; i < points.length && amount > 0; i++) {
        const [x0, y0] = points[i - 1], [x1, y1] = points[i];
        const d = Math.hypot(x1 - x0, y1 - y0);
        const share = Math.min(1, d ? amount / d : 1);
        kept.push([x0 + (x1 - x0) * share, y0 + (y1 - y0) * share]);
        amount -= d;
      }
      part.push(kept);
      break;
    }
    return part;
  }

  let frame = null;
  function redraw() { if (frame === null) frame = requestAnimationFrame(paint); }

  function paint(time) {
    frame = null;
    if (!pad) return;
    const context = begin(pad);
    if (!context) return;
    const mode = modeNow();
    if (replay) {
      const strokes = drawing(), total = strokes.reduce((sum, s) => sum + lengthOf(s.points), 0);
      replay.shown += replay.last ? Math.min(time - replay.last, 50) * 0.35 * replay.speed : 0;
      replay.last = time;
      let left = replay.shown;
      for (const s of strokes) {
        ink(context, pad, partOf([s.points], left).map((points) => ({ by: s.by, points })));
        left -= lengthOf(s.points);
        if (left <= 0) break;
      }
      if (replay.shown >= total) stopReplay();
      redraw();
      return;
    }
    if (mode && mode.paint) { mode.paint(context, pad, time); if (stroke) ink(context, pad, [stroke]); return; }
    if (turn && turn.view && turn.taken === null && !stroke) {
      context.transform(turn.view.scale, 0, 0, turn.view.scale, turn.view.shift, turn.view.shift);
    }
    ink(context, pad, drawing());
    if (stroke && stroke.points.length) ink(context, pad, [stroke]);
    if (turn && turn.kind === "complete" && turn.taken === null && !stroke) {
      const strokes = turn.results ? turn.results[turn.shown] : [];
      const total = strokes.reduce((sum, points) => sum + lengthOf(points), 0);
      if (stillness.matches) turn.revealed = total;
      else turn.revealed += turn.clock ? Math.min(time - turn.clock, 50) * PEN_SPEED : 0;
      turn.clock = time;
      if (turn.revealed > total) turn.revealed = total;
      // An ending that leaves the pad is seen whole: everything draws together a little.
      const ending = strokes.map((points) => ({ points })), wanted = inside([...drawing(), ...ending]);
      const view = turn.view || { scale: 1, shift: 0 }, ease = stillness.matches ? 1 : 0.15;
      if (view.scale !== wanted.scale || view.shift !== wanted.shift) redraw();
      // It comes to rest exactly there, whatever was seen before: the same link shows the same pixels.
      const near = Math.abs(wanted.scale - view.scale) < 1e-3 && Math.abs(wanted.shift - view.shift) < 0.5;
      turn.view = near ? wanted : {
        scale: view.scale + (wanted.scale - view.scale) * ease, shift: view.shift + (wanted.shift - view.shift) * ease,
      };
      context.globalAlpha = 0.9;
      ink(context, pad, partOf(strokes, turn.revealed).map((points) => ({ by: "net", points })));
      context.globalAlpha = 1;
      if (turn.revealed < total || !turn.ended[turn.shown]) redraw();
    }
  }

  function fit(strokes) { // show a drawing that leaves the pad whole
    let low = 0, high = SIDE;
    for (const { points } of strokes) for (const [x, y] of points) {
      low = Math.min(low, x, y); high = Math.max(high, x, y);
    }
    const scale = SIDE / (high - low + 24);
    return { scale, shift: (12 - low) * scale };
  }

  // The same, but as it is where all of it lies on the pad.
  function inside(strokes) {
    const off = strokes.some(({ points }) => points.some(([x, y]) => Math.min(x, y) < 0 || Math.max(x, y) > SIDE));
    return off ? fit(strokes) : { scale: 1, shift: 0 };
  }

  function paintCards() {
    if (!gallery) return;
    gallery.hidden = Boolean(modeNow());
    if (modeNow()) return;
    const kind = turn ? turn.kind : settings.mode === "vary" ? "vary" : "complete";
    const cards = gallery.querySelectorAll(".duet-card");
    gallery.querySelector(".duet-empty").hidden = Boolean(turn) && !turn.error;
    gallery.querySelector(".duet-cards").hidden = !turn || Boolean(turn.error);
    const endings = kind === "complete";
    gallery.querySelector(".duet-heading").textContent = say(endings ? "endings" : "variations");
    gallery.querySelector(".duet-hint").textContent = turn && turn.done && !turn.error
      ? say(endings ? "endings_hint" : "variations_hint") : "";
    gallery.querySelector(".duet-empty-title").textContent = say(endings ? "empty_endings" : "empty_variations");
    gallery.querySelector(".duet-empty-more").textContent =
      say(endings ? "empty_endings_more" : "empty_variations_more");
    if (!turn || turn.error) return;
    cards.forEach((card, k) => {
      card.hidden = k >= turn.n;
      if (card.hidden) return;
      const strokes = (turn.results[k] || []).map((points) => ({ by: "net", points }));
      const canvas = card.querySelector("canvas");
      const ended = Boolean(turn.ended[k]);
      const taken = turn.taken === k;
      card.disabled = !ended || !strokes.length;
      card.classList.toggle("duet-waiting", !ended && !strokes.length);
      card.classList.toggle("duet-shown", endings && turn.shown === k && turn.taken === null);
      card.classList.toggle("duet-taken", taken);
      card.setAttribute("aria-pressed", String(taken));
      card.setAttribute("aria-label", say(
        endings ? (taken ? "ending_taken" : turn.shown === k ? "ending_shown" : "ending_n")
          : taken ? "variation_taken" : "variation_n", { k: k + 1 }));
      card.querySelector(".duet-badge").textContent = taken ? say("taken")
        : endings && turn.shown === k ? say("on_pad") : "";
      const context = begin(canvas); // once its frame is as wide as it will be
      if (!context) return;
      const all = endings ? [...turn.base, ...strokes] : strokes;
      const { scale, shift } = fit(all);
      context.transform(scale, 0, 0, scale, shift, shift);
      ink(context, canvas, all, 2.4);
    });
  }

  function refresh() {
    redraw();
    requestAnimationFrame(paintCards);
    if (buttons.undo) {
      buttons.undo.disabled = now === 0;
      buttons.redo.disabled = now >= history.length - 1;
      buttons.clear.disabled = !drawing().length;
      const ready = turn && turn.kind === "complete" && turn.ended[turn.shown] && turn.taken === null
        && turn.results[turn.shown].length > 0;
      buttons.take.disabled = !ready;
      buttons.next.disabled = !ready;
      buttons.erase.disabled = !drawing().length && !erasing;
      buttons.replay.disabled = !drawing().length;
    }
    if (invitation) invitation.hidden = !isEmpty();
  }

  // --- putting it on the page ----------------------------------------------------------------------
  function attachTitle(element) {
    label(element);
    element.querySelectorAll("[data-language]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.language === language));
      button.addEventListener("click", () => useLanguage(button.dataset.language));
    });
    element.querySelector("[data-do=help]").addEventListener("click", showHelp);
    element.querySelector("[data-do=share]").addEventListener("click", () => window.doodleDuet.share());
  }

  function label(element) {
    element.querySelectorAll("[data-word]").forEach((each) => { each.textContent = say(each.dataset.word); });
    element.querySelectorAll("[data-tip]").forEach((each) => {
      each.title = say(each.dataset.tip);
      each.setAttribute("aria-label", say(each.dataset.tip));
    });
    element.querySelectorAll("[data-label]").forEach((each) => each.setAttribute("aria-label", say(each.dataset.label)));
  }

  function attachPad(element) {
    label(element);
    pad = element.querySelector(".duet-pad");
    status = element.querySelector(".duet-status");
    live = element.querySelector(".duet-live");
    invitation = element.querySelector(".duet-invitation");
    pad.setAttribute("aria-label", `${say("pad")}. ${say("pad_help")}`);
    pad.addEventListener("pointerdown", penDown);
    pad.addEventListener("pointermove", penMove);
    pad.addEventListener("pointerup", penUp);
    pad.addEventListener("pointercancel", penUp);
    pad.addEventListener("contextmenu", (event) => event.preventDefault());
    const actions = {
      next: () => { if (turn && turn.kind === "complete" && turn.taken === null) take(turn.shown, false); },
      erase: () => setErasing(!erasing),
      replay: startReplay,
      undo: () => step(-1, "heard_undo"),
      redo: () => step(1, "heard_redo"),
      clear: () => { if (drawing().length && !stroke) { commit([]); if (erasing) setErasing(false); announce("heard_clear"); think(); } },
      take: () => { if (turn && turn.kind === "complete" && turn.taken === null) take(turn.shown); },
    };
    for (const [name, action] of Object.entries(actions)) {
      buttons[name] = element.querySelector(`[data-do=${name}]`);
      buttons[name].addEventListener("click", action);
    }
    document.addEventListener("keydown", (event) => {
      if (event.target.closest("input, textarea, [contenteditable], [role=listbox]")) return;
      const key = event.key.toLowerCase(), command = event.ctrlKey || event.metaKey;
      if (command && key === "z") { event.preventDefault(); (event.shiftKey ? actions.redo : actions.undo)(); }
      else if (command && key === "y") { event.preventDefault(); actions.redo(); }
      else if (command || event.altKey || event.target.closest("dialog")) return;
      else if (key === "enter" && !event.target.closest("button, a, [role=button]")) actions.take();
      else if (key === "?") showHelp();
      else if (key === "n") actions.next();
      else if (key === "e" && !buttons.erase.disabled) actions.erase();
      else if (key === "p") actions.replay();
      else if (key === "escape" && erasing) actions.erase();
      else if (key === "delete" || key === "backspace") {
        if (drawing().length && !stroke) { commit(drawing().slice(0, -1)); announce("heard_erased"); think(); }
      } else if (/^[1-9]$/.test(key) && turn && Number(key) <= turn.n && turn.ended && turn.ended[Number(key) - 1]) {
        take(Number(key) - 1);
      } else if (modeNow() && modeNow().press && !event.target.closest("button, a, summary, [role=slider]")) {
        modeNow().press(event);
      }
    });
    new ResizeObserver(refresh).observe(pad);
    new MutationObserver(refresh).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    guesses = element.querySelector(".duet-guesses");
    element.querySelector("[data-do=example]").addEventListener("click", example);
    recall();
    const opened = openLink();
    if (opened && opened.settings) lastTime = { ...settings, ...opened.settings };
    connect();
    document.body.dataset.duetMode = settings.mode;
    if (drawing().length) think();
    else tellState();
    refresh();
  }

  function attachGallery(element) {
    gallery = element;
    label(element);
    element.querySelectorAll(".duet-card").forEach((card, k) => {
      card.addEventListener("click", () => take(k));
      card.addEventListener("pointerenter", (event) => { // look before you take
        if (event.pointerType === "touch" || !turn || turn.kind !== "complete" || turn.taken !== null) return;
        if (!turn.ended[k] || turn.shown === k || stroke) return;
        turn.shown = k;
        turn.revealed = Infinity;
        refresh();
      });
    });
    refresh();
  }

  // From the controls.
  function set(changes) {
    if (lastTime) {
      // Gradio's buttons do nothing yet when its controls speak first: try until they say what was asked.
      const differ = Object.keys(lastTime).some((name) => lastTime[name] !== changes[name]);
      if (differ && tried < 10) {
        setTimeout(() => { if (lastTime) { tried += 1; choose({ ...changes, ...lastTime }); set(changes); } }, 150);
        return;
      }
      lastTime = null;
    }
    const before = { ...settings };
    Object.assign(settings, Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined)));
    heedLink();
    const changed = Object.keys(settings).filter((name) => settings[name] !== before[name]);
    if (!changed.length || !pad) return;
    try { localStorage.setItem(KEPT, JSON.stringify(settings)); } catch { /* as for the drawing */ }
    if (changed.includes("model")) showNetwork();
    if (changed.includes("category") && settings.category !== AUTO) { guessed = null; showGuesses(null); }
    if (changed.includes("mode")) {
      const left = modes[before.mode];
      cancel();
      if (left && left.leave) left.leave();
      document.body.dataset.duetMode = settings.mode;
      if (modeNow() && modeNow().enter) modeNow().enter();
    } else if (modeNow() && modeNow().change) {
      modeNow().change(changed);
      return refresh();
    }
    if (!stroke) think();
    return undefined;
  }

  // What the network at work cannot do is greyed out, with the reason.
  let watched = null;
  function greyModes() {
    const { name, lacks } = network();
    for (const input of document.querySelectorAll("#mode input")) {
      const why = lacks[input.value], label = input.closest("label");
      if (input.disabled !== Boolean(why)) input.disabled = Boolean(why);
      label.title = why ? say("lacks", { name, why }) : say(`${input.value}_tip`);
      label.classList.toggle("duet-lacking", Boolean(why));
    }
  }

  async function showNetwork() {
    if (settings.model && !models().some((each) => each.name === settings.model)) { // came after the page was opened
      try { window.doodleDuetModels = await (await fetch("models")).json(); } catch { /* offline: the socket says so */ }
    }
    document.body.dataset.duetModels = models().length > 1 ? "many" : "one";
    const { name, lacks } = network();
    greyModes();
    if (!watched && document.getElementById("mode")) { // Gradio switches them on again whenever it draws them
      watched = new MutationObserver(greyModes);
      watched.observe(document.getElementById("mode"), { subtree: true, childList: true, attributeFilter: ["disabled"] });
    }
    for (const id of ["category", "temperature", "how-many", "how-far", "seed", "model"]) {
      const control = document.getElementById(id);
      if (control) control.title = say(`${id}_tip`);
    }
    if (lacks[settings.mode]) choose({ mode: "finish" });
    const line = document.querySelector(".duet-drawn-by");
    if (!line) return;
    line.querySelector("span").textContent = say("drawn_by", { name });
    line.querySelector("a").href = `models/${encodeURIComponent(name)}`;
    line.hidden = !name;
  }

  // The other way: put values into the controls, which then tell us.
  let wanted = null;
  function choose(values) {
    wanted = { ...settings, ...values };
    const button = document.getElementById("apply");
    if (button) button.click();
    return Boolean(button);
  }

  // The settings of the last visit, put into the controls as soon as these have spoken for the first time.
  function lastSettings() {
    try {
      const kept = JSON.parse(localStorage.getItem(KEPT) || "{}");
      if (!models().some(({ name }) => name === kept.model)) delete kept.model; // it is gone: the usual one
      return Object.fromEntries(Object.keys(settings).filter((name) => name in kept && (
        name === "category" ? kept[name] === null || typeof kept[name] === "string" : typeof kept[name] === typeof settings[name]
      )).map((name) => [name, kept[name]]));
    } catch { return {}; } // damaged: as it comes
  }
  let lastTime = lastSettings(), tried = 0;

  function useLanguage(chosen) {
    try { localStorage.setItem("doodle-duet-language", chosen); } catch { /* then for this visit only */ }
    document.cookie = `duet_language=${chosen}; path=/; SameSite=Lax; max-age=31536000`;
    location.reload();
  }

  // A start for a category: the first strokes of a careful drawing of the network's.
  async function example() {
    if (stroke) return;
    const found = await window.doodleDuet.ask({
      do: "draw", category: category(), temperature: 0.25, seed: Math.floor(Math.random() * 1e6), n: 1,
    });
    if (!found || found.error || stroke) return;
    const strokes = found.drawings[0], part = Math.max(1, Math.floor(strokes.length * 0.4));
    let kept = strokes.slice(0, part);
    if (strokes.length === 1) kept = [strokes[0].slice(0, Math.max(2, Math.ceil(strokes[0].length / 2)))];
    const fit = ([x, y]) => [round(56 + x * 0.78), round(56 + y * 0.78)];
    commit(kept.map((points) => ({ by: "hand", points: points.map(fit) })));
    tell("say_example");
    think();
  }

  let help = null;
  function showHelp() {
    if (!help) {
      help = document.createElement("dialog");
      help.className = "duet-help";
      const title = document.createElement("h2"), list = document.createElement("dl");
      title.textContent = say("shortcuts");
      for (const [keys, key] of [["Ctrl+Z", "undo"], ["Ctrl+Shift+Z", "redo"], ["Enter", "key_take"], ["N", "key_next"],
        ["1 … 9", "key_number"], ["E", "key_erase"], ["Del", "key_delete"], ["P", "key_replay"], ["← →", "key_step"],
        ["?", "shortcuts"]]) {
        const term = document.createElement("dt"), what = document.createElement("dd");
        term.textContent = keys;
        what.textContent = say(key);
        list.append(term, what);
      }
      const close = document.createElement("button");
      close.textContent = say("close");
      close.className = "duet-tool";
      close.onclick = () => help.close();
      help.append(title, list, close);
      document.body.append(help);
    }
    if (!help.open) help.showModal();
  }

  window.doodleDuet = {
    attachTitle, attachPad, attachGallery, set,
    wanted: () => wanted,
    // For the other modes.
    modes, settings, say, nameOf, network, model, tell, announce, choose, category, thinned, redraw, begin, ink, fit,
    lengthOf, partOf, colour, label, trace, showNetwork, SIDE, AUTO,
    strokes: drawing,
    put: (strokes) => { commit(strokes); announce("say_put"); think(); },
    followLink,
    // What a link must tell beside the drawing: endings of what, which one is shown or taken, and the guess.
    turnNow: () => ({
      taken: turn && !turn.error ? turn.taken : null, shown: turn ? turn.shown : 0, base: turn ? turn.base : drawing(),
      guessed: settings.category === AUTO ? guessed : null,
    }),
    drawingNow: () => Boolean(stroke),
    still: () => stillness.matches,
    // For tests and curious people.
    drawing: () => drawing().map((s) => ({ by: s.by, points: s.points.map((p) => p.slice(0, 2)) })),
    endings: () => (turn && turn.done && !turn.error ? turn.results : null),
    settingsNow: () => ({ ...settings }),
    connected: () => Boolean(socket && socket.readyState === WebSocket.OPEN),
    _drop: () => socket && socket.close(),
  };
})();
