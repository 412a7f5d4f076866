// The screens before and after the read: consent, registration, instructions, display check, summary, lock, ends.
import { newId, now } from "./api.js";
import { ask, choices, fill, h } from "./dom.js";
import { Fields } from "./fields.js";
import { menu, savedState, withdraw } from "./menu.js";

const STEPS = ["consent", "registration", "instructions", "display"];
const FIELDS = 4; // in each row of the display check, one with a square
const ROWS = { dark: [0, 13], light: [255, 242] }; // the grey of a field, and of the square: a step of 5 %
const CARD = { width: 323, centimetres: 8.56 };

// A calm sheet with a title, its body and the way on.
function sheet(app, step, title, ...body) {
  const { words, settings } = app;
  const named = (name) => h("li", { "aria-current": name === step ? "step" : null, text: words[name].step });
  const steps = h("ol", { className: "steps", "aria-label": title }, STEPS.includes(step) && STEPS.map(named));
  const problem = h("p", { className: "problem", role: "alert" });
  const heading = h("h1", { text: title, tabIndex: -1 });
  const saved = h("span", { className: "saved", role: "status" });
  app.root.replaceChildren(
    h("div", { className: "scroll" }, h("main", { className: "sheet" }, step !== "block" && h("p", { className: "study", text: app.state.block.title ?? settings.title }), steps, heading, body, problem)),
    h("footer", { className: "foot" }, saved, menu(app)),
  );
  heading.focus({ preventScroll: true });
  const say = (text) => (problem.textContent = text);
  return { say, notice: say, waiting: (count, trouble) => savedState(app, saved, count, trouble, false) };
}

const text = (words) => h("p", { className: "text", text: words });
const row = (...nodes) => h("div", { className: "row end" }, nodes);
const primary = (words, onclick, more) => h("button", { type: "button", className: "primary", text: words, onclick, ...more });
const field = (words, group) => h("div", { className: "field" }, h("span", { text: words }), group.node);

export function consent(app) {
  const { words: { consent: words, language }, settings } = app;
  const send = () => ((go.disabled = true), app.outbox.put("consented", "", { language }));
  const go = primary(words.go_on, send, { disabled: true });
  const agree = h("input", { type: "checkbox", id: "agree", onchange: () => (go.disabled = !agree.checked) });
  const facts = ["protocol", "ethics", "contact"].filter((name) => settings[name]);
  const listed = facts.map((name) => [h("dt", { text: words[name] }), h("dd", { text: settings[name] })]);
  return sheet(app, "consent", words.title, text(settings.consent), h("dl", {}, listed), h("label", { className: "check" }, agree, words.agree), row(go));
}

export function registration(app) {
  const words = app.words.registration;
  const go = primary(words.go_on, save);
  const fields = new Fields(app, app.settings.about_you, undefined, true);
  function save() {
    const missing = fields.missing();
    if (missing) return screen.say(fill(app.words.read.needed, { question: missing.question.text }));
    go.disabled = true;
    return app.outbox.put("registered", "", fields.get());
  }
  const screen = sheet(app, "registration", words.title, h("p", { text: words.lead }), fields.nodes, row(go));
  return screen;
}

// The screen of the phase "display" begins with the instructions.
export { instructions as display };

function instructions(app) {
  const { words: { instructions: words }, state } = app;
  const go = primary(words.go_on, () => (app.screen = displayCheck(app)));
  return sheet(app, "instructions", words.title, text(state.block.instructions), points(app, state.block), row(go));
}

// What holds for reading images, whatever is asked of them.
function points({ words: { instructions: words }, settings }, block) {
  const told = block.tell_truth ? words.told : words.not_told;
  const back = words.going_back[block.tell_truth ? "never" : settings.going_back];
  return block.images && h("ul", {}, [back, ...words.points, told].map((point) => h("li", { text: point })));
}

// A later block's text, which comes with its turn; a block without images also has its questions here. After the last
// one readers know everything: whoever does not want to stay in leaves here.
export function block(app) {
  const { words: { part: words, withdraw: leaving }, state: { block: here } } = app;
  const fields = new Fields(app, here.images ? [] : here.questions, undefined, true);
  const go = primary(here.images ? words.begin : words.go_on, begin);
  function begin() {
    const missing = fields.missing();
    if (missing) return screen.say(fill(app.words.read.needed, { question: missing.question.text }));
    go.disabled = true;
    return app.outbox.put("begun", "", { block: here.number, ...fields.get() });
  }
  const leave = here.last && !here.images && h("button", { type: "button", className: "danger", text: leaving.all, onclick: () => withdraw(app) });
  const screen = sheet(app, "block", here.title, text(here.instructions), points(app, here), fields.nodes, row(leave, go));
  return screen;
}

// A block is read: before the next one begins its answers become final.
export function close(app) {
  const { words: { part: words }, state } = app;
  const go = primary(words.close, () => ((go.disabled = true), app.outbox.put("closed", "", { block: state.block.number })));
  return sheet(app, "close", words.closing, h("p", { text: words.closing_body }), again(app), row(go));
}

// The next block begins on a later day.
export function wait(app) {
  const { words: { part: words, language }, state } = app;
  const opens = new Date(state.opens_utc).toLocaleString(language, { dateStyle: "full", timeStyle: "short" });
  if (!app.outbox.waiting.length) app.kept.clear();
  return sheet(app, "wait", words.waiting, h("p", { text: fill(words.waiting_body, { opens }) }));
}

// A row of fields of which one has a faint square; seen() says whether that one was chosen.
function pattern(words, name) {
  const [ground, square] = ROWS[name];
  const grey = (value) => `background: rgb(${value},${value},${value})`;
  const options = Array.from({ length: FIELDS }, (_, n) => [String(n + 1), fill(words.field, { n: n + 1 })]);
  const group = choices(words[name], [...options, ["none", words.none]], { className: "fields" });
  let odd = 0;
  const shuffle = () => {
    odd = 1 + (crypto.getRandomValues(new Uint8Array(1))[0] % FIELDS);
    group.set([]);
    group.node.querySelectorAll(".patch span").forEach((inner, n) => (inner.style.background = n + 1 === odd ? `rgb(${square},${square},${square})` : "none"));
  };
  group.node.querySelectorAll("button:not([data-value=none])").forEach((button) => button.prepend(h("span", { className: "patch", style: grey(ground) }, h("span", {}))));
  shuffle();
  return { node: field(words[name], group), shuffle, chosen: () => group.get()[0], seen: () => group.get()[0] === String(odd) };
}

function displayCheck(app) {
  const words = app.words.display;
  const rows = { dark: pattern(words, "dark"), light: pattern(words, "light") };
  const room = choices(words.room_light, Object.entries(words.room_lights));
  const device = choices(words.device, Object.entries(words.devices));
  const bar = h("div", { className: "card", style: `width: ${CARD.width}px` });
  let measured = 0;
  let attempts = 0;
  const measure = () => ((measured = Number(slider.value)), (bar.style.width = `${measured}px`));
  const slider = h("input", { type: "range", min: 150, max: 700, value: CARD.width, "aria-label": words.slider, oninput: measure });
  const go = primary(words.go_on, save);
  async function save() {
    if (![rows.dark.chosen(), rows.light.chosen(), room.get()[0], device.get()[0]].every(Boolean)) return screen.say(words.missing);
    screen.say("");
    attempts += 1;
    const seen = { dark_seen: rows.dark.seen(), light_seen: rows.light.seen() };
    const steps_seen = seen.dark_seen && seen.light_seen;
    if (!steps_seen && (await ask(words.warning, words.dim, [["pass", words.pass], ["", words.again, "primary"]])) !== "pass") {
      return Object.values(rows).forEach((one) => one.shuffle());
    }
    go.disabled = true;
    const { width, height, colorDepth } = window.screen;
    const checked = {
      ...seen, steps_seen, attempts, dark_step: ROWS.dark[1], light_step: 255 - ROWS.light[1],
      room_light: room.get()[0], device: device.get()[0],
      screen_width: width, screen_height: height, window_width: innerWidth, window_height: innerHeight,
      pixel_ratio: devicePixelRatio, color_depth: colorDepth, touch: navigator.maxTouchPoints > 0, browser: navigator.userAgent.slice(0, 300),
    };
    if (measured) checked.pixels_per_cm = Math.round((measured * devicePixelRatio * 100) / CARD.centimetres) / 100;
    return app.outbox.put("display", "", checked);
  }
  const screen = sheet(app, "display", words.title, h("p", { text: words.lead }), rows.dark.node, rows.light.node,
    field(words.room_light, room), field(words.device, device), h("p", { text: words.card }), bar, slider, row(go));
  return screen;
}

// The answers that may still be changed.
function again({ words: { summary: words }, state, settings, openAnswer }) {
  const open = Object.keys(state.answers).filter((id) => !state.pictures[id].training);
  const look = (id) => h("button", { type: "button", className: "choice", text: fill(words.image, { n: state.pictures[id].position }), onclick: () => openAnswer(id) });
  const part = ({ title, number }) => {
    const own = open.filter((id) => state.pictures[id].block === number);
    return own.length > 0 && [state.earlier.length > 0 && h("p", { text: title }), h("div", { className: "choices" }, own.map(look))];
  };
  return open.length > 0 && settings.going_back !== "never" && h("details", {}, h("summary", { text: words.again }), [...state.earlier, state.block].map(part));
}

export function summary(app) {
  const { words: { summary: words, signin } } = app;
  const code = h("input", { type: "text", autocomplete: "off", spellcheck: false, className: "code", "aria-label": signin.code });
  const lock = h("button", { type: "submit", className: "primary", text: words.lock });
  const form = h("form", { className: "lock", onsubmit: sign }, h("p", { text: words.lead }), h("label", {}, signin.code, code), row(lock));
  const message = { id: newId(), event: "locked", blind_id: "", payload: {}, browser_utc: now() };
  async function sign(event) {
    event.preventDefault();
    lock.disabled = true;
    await app.outbox.empty();
    const { status, data, wait } = await app.server.record(message, code.value);
    lock.disabled = false;
    const problem = { 403: words.wrong, 429: fill(signin.wait, { seconds: wait }) };
    if (status !== 200) return screen.say(problem[status] ?? (data.error || signin.trouble));
    app.state = { ...app.state, ...data.state };
    return app.show();
  }
  const screen = sheet(app, "summary", words.title, h("p", { text: words.body }), again(app), form);
  return screen;
}

export function locked(app) {
  const { words: { locked: words }, state } = app;
  if (!app.outbox.waiting.length) app.kept.clear();
  const head = h("code", { className: "head", text: state.head });
  const copy = h("button", { type: "button", text: words.copy, onclick: async () => {
    await navigator.clipboard?.writeText(state.head).catch(() => getSelection().selectAllChildren(head));
    copy.textContent = words.copied;
  } });
  const print = h("button", { type: "button", text: words.print, onclick: () => window.print() });
  return sheet(app, "locked", words.title, h("p", { text: words.body }), h("p", { text: fill(words.reader, { id: state.reader }) }), head, h("div", { className: "row" }, copy, print));
}

export function withdrawn(app) {
  if (!app.outbox.waiting.length) app.kept.clear();
  const [title, body] = app.words.ended[app.state.phase === "erased" ? "erased" : app.state.withdrawn_by];
  return sheet(app, "ended", title, h("p", { text: body }));
}

export { withdrawn as erased };
