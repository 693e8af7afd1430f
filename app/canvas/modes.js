// Modes beside finishing and varying: comparing temperatures, blending drawings, dreaming. Each fills a panel of its
// own and asks the network over a second connection, so that none of them can hold up the endings.
(() => {
  const duet = window.doodleDuet;
  if (!duet || duet.attachPanels) return;
  const { say, settings, modes } = duet;
  const panels = {};

  // --- asking ----------------------------------------------------------------------------------------
  let socket = null, opening = null, nextId = 1;
  const asked = new Map(); // id: {resolve, rows}

  function open() {
    if (socket && socket.readyState === WebSocket.OPEN) return Promise.resolve();
    if (opening) return opening;
    opening = new Promise((resolve, reject) => {
      const folder = location.pathname.replace(/[^/]*$/, "");
      socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${folder}live`);
      socket.onopen = () => { opening = null; resolve(); };
      socket.onclose = () => {
        opening = null;
        socket = null;
        for (const each of asked.values()) each.resolve({ error: "offline" });
        asked.clear();
        reject(new Error("offline"));
      };
      socket.onmessage = (event) => {
        const message = JSON.parse(event.data);
        const each = asked.get(message.id);
        if (message.type === "points") { if (each && each.rows) each.rows(message.rows); return; }
        if (message.type === "error" && message.id === null) { for (const one of asked.values()) one.resolve(message); return; }
        if (!each) return;
        asked.delete(message.id);
        each.resolve(message.type === "error" ? { ...message, error: message.code } : message);
      };
    });
    return opening;
  }

  // The server's last message to a request: {drawings} or {found}, or {error}. A new question takes the place of the
  // one before, which then answers null.
  duet.ask = async (request, rows = null) => {
    for (const [id, each] of asked) { asked.delete(id); each.resolve(null); }
    try { await open(); } catch { return { error: "offline" }; }
    const id = nextId++;
    return new Promise((resolve) => {
      asked.set(id, { resolve, rows });
      socket.send(JSON.stringify({ id, model: duet.model(), ...request }));
    });
  };

  const heardError = (answer) => {
    if (!answer || !answer.error) return false;
    const known = say(`error_${answer.error}`);
    duet.tell(known === `error_${answer.error}` ? answer.message || answer.error : `error_${answer.error}`, {}, "warn");
    return true;
  };

  // --- small parts -----------------------------------------------------------------------------------
  duet.make = (tag, options = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(options)) {
      if (name === "text") element.textContent = value;
      else if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
      else if (name in element && name !== "list") element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };
  const { make } = duet;

  // A picture that can be clicked. show(strokes) draws it; strokes are {by, points}.
  duet.picture = (label, click) => {
    const canvas = make("canvas");
    const card = make("button", { type: "button", className: "duet-card duet-waiting", disabled: true }, canvas);
    card.setAttribute("aria-label", label);
    card.addEventListener("click", click);
    card.show = (strokes, whole = false) => {
      card.strokes = strokes;
      card.disabled = !strokes.length;
      card.classList.remove("duet-waiting");
      const context = duet.begin(canvas);
      if (!context) return;
      const { scale, shift } = duet.fit(strokes);
      context.transform(scale, 0, 0, scale, shift, shift);
      duet.ink(context, canvas, strokes, whole ? 1.6 : 2.6);
    };
    card.wait = () => { card.disabled = true; card.classList.add("duet-waiting"); };
    card.again = () => card.strokes && card.show(card.strokes);
    return card;
  };
  const byNet = (drawing) => drawing.map((points) => ({ by: "net", points }));
  const sent = (strokes) => duet.thinned(strokes);

  const head = (title, hint, ...tools) => make("div", { className: "duet-gallery-head" },
    make("h2", { text: say(title) }), make("span", { className: "duet-hint", text: say(hint) }), ...tools);

  const tool = (key, click, extra = {}) => make("button", {
    type: "button", className: "duet-tool duet-small", text: say(key), title: say(`${key}_tip`), on: { click }, ...extra,
  });

  // --- compare ---------------------------------------------------------------------------------------
  const HEATS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
  const compare = { seeds: 1, cards: [], of: null };

  function buildCompare(panel) {
    compare.hint = make("span", { className: "duet-hint" });
    compare.grid = make("div", { className: "duet-compare", role: "group" });
    compare.grid.setAttribute("aria-label", say("compare"));
    const choice = make("div", { className: "duet-choice", role: "group" });
    choice.setAttribute("aria-label", say("compare_seeds"));
    for (const [seeds, key] of [[1, "compare_strip"], [4, "compare_grid"]]) {
      choice.append(make("button", {
        type: "button", text: say(key), "aria-pressed": String(seeds === compare.seeds),
        on: { click: (event) => {
          compare.seeds = seeds;
          choice.querySelectorAll("button").forEach((each) => each.setAttribute("aria-pressed", String(each === event.target)));
          askCompare();
        } },
      }));
    }
    panel.append(make("div", { className: "duet-gallery-head" }, make("h2", { text: say("compare_title") }), choice),
      compare.hint, compare.grid, make("p", { className: "duet-note", text: say("compare_note") }));
  }

  function layCompare() {
    compare.grid.replaceChildren();
    compare.grid.dataset.seeds = compare.seeds;
    compare.cards = [];
    for (const heat of HEATS) {
      const column = make("div", { className: "duet-column" }, make("span", { text: `τ ${heat.toFixed(1)}` }));
      column.dataset.heat = heat;
      for (let k = 0; k < compare.seeds; k++) {
        const seed = settings.seed + k;
        const card = duet.picture(say("compare_card", { heat: heat.toFixed(1), seed }), () => {
          compare.chosen = true;
          duet.choose({ temperature: heat, seed });
          duet.tell("say_compare_chosen", { heat: heat.toFixed(1), seed });
        });
        compare.cards.push(card);
        column.append(card);
      }
      compare.grid.append(column);
    }
    markCompare();
  }

  function markCompare() {
    let nearest = null;
    for (const column of compare.grid.children) {
      const off = Math.abs(column.dataset.heat - settings.temperature);
      if (!nearest || off < Math.abs(nearest.dataset.heat - settings.temperature) - 1e-9) nearest = column;
    }
    for (const column of compare.grid.children) column.classList.toggle("duet-here", column === nearest);
    if (nearest && compare.grid.scrollWidth > compare.grid.clientWidth) {
      compare.grid.scrollLeft = nearest.offsetLeft - compare.grid.clientWidth / 2 + nearest.clientWidth / 2;
    }
  }

  async function askCompare() {
    const base = duet.strokes();
    compare.of = base.length ? "complete" : "draw";
    compare.hint.textContent = say(base.length ? "compare_hint" : "compare_hint_empty");
    compare.asked = settings.seed;
    layCompare();
    const drawn = HEATS.flatMap(() => Array.from({ length: compare.seeds }, () => []));
    const paint = (k) => compare.cards[k] && compare.cards[k].show([...base, ...byNet(drawn[k])]);
    duet.tell("thinking", {}, "busy");
    const answer = await duet.ask({
      do: "compare", of: compare.of, strokes: base.length ? sent(base) : undefined, category: duet.category(),
      temperatures: HEATS, seeds: compare.seeds, seed: settings.seed,
    }, (rows) => {
      const touched = new Set();
      for (const [k, x, y, pen] of rows) {
        if (pen === 0) drawn[k].push([[x, y]]);
        else if (pen === 1) drawn[k][drawn[k].length - 1].push([x, y]);
        touched.add(k);
      }
      touched.forEach(paint);
    });
    if (!answer || heardError(answer)) return;
    answer.drawings.forEach((drawing, k) => { drawn[k] = drawing; paint(k); });
    compare.done = answer.drawings;
    duet.tell("say_compared");
    duet.announce("say_compared");
  }

  modes.compare = {
    enter: askCompare,
    change(what) {
      if (what !== "drawing" && !what.includes("seed") && !what.includes("category")) return markCompare();
      // A picture that was clicked is there already: only its column is marked.
      if (compare.chosen) { compare.chosen = false; if (compare.seeds > 1) return markCompare(); }
      return askCompare();
    },
    press(event) {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const step = event.key === "ArrowLeft" ? -0.1 : 0.1;
      duet.choose({ temperature: Math.min(1, Math.max(0.1, Math.round((settings.temperature + step) * 10) / 10)) });
    },
  };

  // --- blend -----------------------------------------------------------------------------------------
  const NAMES = ["A", "B", "C", "D"];
  const blend = { how: "strip", slots: [null, null, null, null], frames: [], at: 0, playing: false };

  function buildBlend(panel) {
    const choice = make("div", { className: "duet-choice", role: "group" });
    choice.setAttribute("aria-label", say("blend_how"));
    for (const how of ["strip", "grid", "sum"]) {
      choice.append(make("button", {
        type: "button", text: say(`blend_${how}`), "aria-pressed": String(how === blend.how),
        on: { click: (event) => {
          blend.how = how;
          choice.querySelectorAll("button").forEach((each) => each.setAttribute("aria-pressed", String(each === event.target)));
          fillSlots();
        } },
      }));
    }
    blend.hint = make("p", { className: "duet-note" });
    blend.row = make("div", { className: "duet-slots" });
    blend.play = tool("blend_play", () => { blend.playing = !blend.playing; blend.clock = 0; showPlay(); duet.redraw(); });
    blend.results = make("div", { className: "duet-strip" });
    panel.append(make("div", { className: "duet-gallery-head" }, make("h2", { text: say("blend_title") }), choice, blend.play),
      blend.hint, blend.row, blend.results);
    NAMES.forEach((name, i) => {
      const card = duet.picture(say("blend_slot", { name }), () => putSlot(i));
      const slot = make("div", { className: "duet-slot" }, make("b", { text: name }), card,
        tool("blend_pad", () => takePad(i)), tool("blend_dice", () => dice(i)));
      slot.card = card;
      blend.row.append(slot);
    });
  }

  const needed = () => ({ strip: 2, grid: 4, sum: 3 })[blend.how];
  const showPlay = () => {
    blend.play.hidden = blend.how !== "strip";
    blend.play.textContent = say(blend.playing ? "pause" : "blend_play");
  };

  function showSlots() {
    [...blend.row.children].forEach((slot, i) => {
      slot.hidden = i >= needed();
      if (blend.slots[i]) slot.card.show(blend.slots[i].strokes);
      else slot.card.wait();
    });
    blend.hint.textContent = say(`blend_${blend.how}_note`);
    showPlay();
  }

  function putSlot(i) { if (blend.slots[i]) duet.put(blend.slots[i].strokes); }

  function takePad(i) {
    const strokes = duet.strokes();
    if (!strokes.length) { duet.tell("say_start"); return; }
    blend.slots[i] = { strokes, category: duet.category() };
    askBlend();
  }

  async function dice(i) {
    // The chosen category, or one of those that the network draws well.
    const favourites = duet.favourites();
    const category = duet.category() || favourites[Math.floor(Math.random() * favourites.length)];
    const seed = Math.floor(Math.random() * 1e6);
    const answer = await duet.ask({ do: "draw", category, temperature: 0.25, seed, n: 1 });
    if (!answer || heardError(answer)) return false;
    blend.slots[i] = { strokes: byNet(answer.drawings[0]), category };
    return askBlend();
  }

  // Empty slots: the drawing on the pad first, then random ones.
  async function fillSlots() {
    const pad = duet.strokes();
    if (pad.length && !blend.slots[0]) blend.slots[0] = { strokes: pad, category: duet.category() };
    showSlots();
    for (let i = 0; i < needed(); i++) {
      if (blend.slots[i]) continue;
      const favourites = duet.favourites(), category = favourites[Math.floor(Math.random() * favourites.length)];
      const answer = await duet.ask({
        do: "draw", category, temperature: 0.25, seed: Math.floor(Math.random() * 1e6), n: 1,
      });
      if (!answer || heardError(answer)) return;
      blend.slots[i] = { strokes: byNet(answer.drawings[0]), category };
      showSlots();
    }
    askBlend();
  }

  async function askBlend() {
    showSlots();
    const chosen = blend.slots.slice(0, needed());
    if (chosen.some((slot) => !slot)) return;
    const steps = { strip: 9, grid: 5, sum: 2 }[blend.how], n = { strip: 9, grid: 25, sum: 1 }[blend.how];
    blend.results.className = `duet-strip duet-${blend.how}`;
    blend.results.replaceChildren(...Array.from({ length: n }, (_, k) => duet.picture(
      say("blend_card", { k: k + 1 }), () => { blend.playing = false; blend.at = k; showPlay(); duet.put(byNet(blend.frames[k])); })));
    blend.frames = [];
    duet.tell("thinking", {}, "busy");
    const answer = await duet.ask({
      do: "blend", how: blend.how, steps, drawings: chosen.map((slot) => sent(slot.strokes)),
      categories: chosen.map((slot) => slot.category), temperature: Math.min(settings.temperature, 0.25), seed: settings.seed,
    });
    if (!answer || heardError(answer)) return;
    blend.frames = answer.drawings;
    [...blend.results.children].forEach((card, k) => card.show(byNet(blend.frames[k] || [])));
    duet.tell(blend.how === "sum" ? "say_summed" : "say_blended");
    duet.redraw();
  }

  modes.blend = {
    enter: fillSlots,
    leave() { blend.playing = false; },
    change(what) { if (what !== "drawing" && (what.includes("temperature") || what.includes("seed"))) askBlend(); },
    press(event) {
      if (event.key === " ") { event.preventDefault(); blend.play.click(); }
    },
    // On the pad: what is drawn, or the morph while it plays, one picture fading into the next.
    paint(context, pad, time) {
      if (!blend.playing || blend.how !== "strip" || blend.frames.length < 2) { duet.ink(context, pad, duet.strokes()); return; }
      blend.at += blend.clock ? Math.min(time - blend.clock, 60) / (duet.still() ? 1200 : 420) : 0;
      blend.clock = time;
      const last = blend.frames.length - 1, turn = blend.at % (2 * last); // there and back
      const place = turn > last ? 2 * last - turn : turn;
      const from = Math.floor(place), mix = duet.still() ? 0 : place - from;
      for (const [k, share] of [[from, 1 - mix], [Math.min(from + 1, last), mix]]) {
        context.globalAlpha = share;
        duet.ink(context, pad, byNet(blend.frames[k]));
      }
      context.globalAlpha = 1;
      [...blend.results.children].forEach((card, k) => card.classList.toggle("duet-shown", k === Math.round(place)));
      duet.redraw();
    },
  };

  // --- dream -----------------------------------------------------------------------------------------
  const dream = { next: 0, busy: false, more: null };
  const MOST = 270;

  function buildDream(panel) {
    dream.cards = make("div", { className: "duet-dreams" });
    dream.more = make("button", { type: "button", className: "duet-tool", text: say("dream_more"), on: { click: dreamOn } });
    panel.append(head("dream_title", "dream_hint"), dream.cards, dream.more);
    new IntersectionObserver((entries) => {
      if (settings.mode === "dream" && entries.some((entry) => entry.isIntersecting)) dreamOn();
    }, { rootMargin: "200px" }).observe(dream.more);
  }

  function dreamAgain() {
    dream.next = 0;
    dream.busy = false;
    dream.cards.replaceChildren();
    dreamOn();
  }

  async function dreamOn() {
    if (dream.busy || dream.next >= MOST) return;
    dream.busy = true;
    const begin = dream.next, seed = settings.seed + begin, round = {};
    dream.round = round;
    const cards = Array.from({ length: 9 }, (_, k) => duet.picture(
      say("dream_card", { k: begin + k + 1 }), () => { duet.put(cards[k].strokes); duet.tell("say_put"); }));
    dream.cards.append(...cards);
    // Without a category each drawing is of one of its own, so that there is something to see in each.
    const category = duet.category();
    const answer = await duet.ask(
      { do: "draw", category, temperature: settings.temperature, seed: seed % 2147483647, n: 9 });
    if (dream.round !== round) return;
    dream.busy = false;
    if (!answer || heardError(answer)) { cards.forEach((card) => card.remove()); return; }
    answer.drawings.forEach((drawing, k) => cards[k].show(byNet(drawing)));
    dream.next += 9;
    duet.tell("say_dreamt");
    const box = dream.more.getBoundingClientRect();
    if (settings.mode === "dream" && box.top < window.innerHeight + 200) dreamOn();
  }

  modes.dream = {
    enter: dreamAgain,
    change(what) { if (what !== "drawing" && !what.includes("n") && !what.includes("spread")) dreamAgain(); },
  };

  // --- on the page -----------------------------------------------------------------------------------
  // Categories that it draws well, where the network at work knows them.
  const FAVOURITES = ["cat", "face", "bicycle", "flower", "house", "fish", "octopus", "pig", "sun", "tree", "star",
    "umbrella", "snowman", "airplane", "butterfly", "ice cream"];
  duet.favourites = () => {
    const known = duet.network().categories, good = FAVOURITES.filter((name) => known.includes(name));
    return good.length ? good : known.length ? known : [null];
  };

  const builders = { compare: buildCompare, blend: buildBlend, dream: buildDream };
  duet.buildPanel = (name, build) => { builders[name] = build; };

  duet.attachPanels = (element) => {
    duet.label(element);
    duet.showNetwork();
    const place = element.querySelector(".duet-panels");
    for (const [name, build] of Object.entries(builders)) {
      panels[name] = make("section", { className: "duet-panel" });
      panels[name].dataset.mode = name;
      build(panels[name]);
      place.append(panels[name]);
    }
    const again = () => place.querySelectorAll(".duet-card").forEach((card) => card.again());
    new MutationObserver(again).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    let wide = 0;
    new ResizeObserver(() => {
      if (place.clientWidth !== wide) { wide = place.clientWidth; requestAnimationFrame(again); }
    }).observe(place);
  };

  // For tests and curious people.
  duet.compared = () => (settings.mode === "compare" ? compare.done || null : null);
  duet.blended = () => blend.frames;
  duet.dreams = () => [...dream.cards.children].map((card) => card.strokes).filter(Boolean);
})();
