// The screens before and after the read: consent, registration, instructions, display check,
// summary, lock, ends.
import { newId, now } from "./api.js";
import { ask, button, choices, ending, fill, h, p, row } from "./dom.js";
import { Fields } from "./fields.js";
import { menu, savedState, withdraw } from "./menu.js";

const STEPS = ["consent", "registration", "instructions", "display"];
const FIELDS = 4; // in each row of the display check, one with a square
// The grey of a field, and of the square: a step of 5 %
const ROWS = { dark: [0, 13], light: [255, 242] };
const CARD = { width: 323, centimetres: 8.56 };

// A screen with a title, a body and a button to continue.
function sheet(app, step, title, ...body) {
  const named = (name) =>
    h("li", { "aria-current": name === step ? "step" : null, text: app.words[name].step });
  const list = { className: "steps", "aria-label": title };
  const problem = h("p", { className: "problem", role: "alert" });
  const heading = h("h1", { text: title, tabIndex: -1 });
  const saved = h("span", { className: "saved", role: "status" });
  const main = h(
    "main",
    { className: "sheet" },
    step !== "block" && p(app.title(), "study"),
    STEPS.includes(step) && h("ol", list, STEPS.map(named)),
    heading,
    body,
    problem,
  );
  app.root.replaceChildren(
    h("div", { className: "scroll" }, main),
    h("footer", { className: "foot" }, saved, menu(app)),
  );
  heading.focus({ preventScroll: true });
  const notice = (text) => (problem.textContent = text);
  const waiting = (count, trouble) => savedState(app, saved, count, trouble, false);
  return { notice, waiting };
}

const field = (words, group) => h("div", { className: "field" }, h("span", { text: words }), group);
const primary = (words, onclick, more) => button(words, onclick, { className: "primary", ...more });

// A button to continue; its message is sent once.
function sending(app, words, event, payload, more) {
  const go = primary(words, () => ((go.disabled = true), app.outbox.put(event, "", payload)), more);
  return go;
}

// Questions that are asked once, and a button to continue after they are answered.
function asking(app, questions, words, event, payload) {
  const fields = new Fields(app, questions, undefined, true);
  const go = primary(words, () => {
    const { question } = fields.missing() ?? {};
    if (question)
      return app.screen.notice(fill(app.words.read.needed, { question: question.text }));
    go.disabled = true;
    return app.outbox.put(event, "", { ...payload, ...fields.get() });
  });
  return [fields.nodes, go];
}

export function consent(app) {
  const { consent: words, language } = app.words;
  const { settings } = app;
  const go = sending(app, words.go_on, "consented", { language }, { disabled: true });
  const onchange = () => (go.disabled = !agree.checked);
  const agree = h("input", { type: "checkbox", id: "agree", onchange });
  const facts = ["protocol", "ethics", "contact"].filter((name) => settings[name]);
  const listed = (name) => [h("dt", { text: words[name] }), h("dd", { text: settings[name] })];
  return sheet(
    app,
    "consent",
    words.title,
    p(settings.consent, "text"),
    h("dl", {}, facts.map(listed)),
    h("label", { className: "check" }, agree, words.agree),
    ending(go),
  );
}

export function registration(app) {
  const words = app.words.registration;
  const [nodes, go] = asking(app, app.settings.about_you, words.go_on, "registered");
  return sheet(app, "registration", words.title, p(words.lead), nodes, ending(go));
}

// The screen of the phase "display" begins with the instructions.
export { instructions as display };

function instructions(app) {
  const words = app.words.instructions;
  const { block: here } = app.state;
  const go = primary(words.go_on, () => (app.screen = displayCheck(app)));
  const text = p(here.instructions, "text");
  return sheet(app, "instructions", words.title, text, points(app, here), ending(go));
}

// The rules of reading that do not depend on the questions.
function points(app, here) {
  const words = app.words.instructions;
  const told = here.tell_truth ? words.told : words.not_told;
  const back = words.going_back[here.tell_truth ? "never" : app.settings.going_back];
  const listed = [back, ...words.points, told].map((point) => h("li", { text: point }));
  return here.images && h("ul", {}, listed);
}

// The text of a later block, which arrives at its turn. A block without images also has its
// questions here. After the last text readers know everything, so they may withdraw here.
export function block(app) {
  const { part: words, withdraw: leaving } = app.words;
  const { block: here } = app.state;
  const on = here.images ? words.begin : words.go_on;
  const questions = here.images ? [] : here.questions;
  const [nodes, go] = asking(app, questions, on, "begun", { block: here.number });
  const ends = here.last && !here.images;
  const leave = ends && button(leaving.all, () => withdraw(app), { className: "danger" });
  const text = p(here.instructions, "text");
  return sheet(app, "block", here.title, text, points(app, here), nodes, ending(leave, go));
}

// A block is finished: its answers become final before the next block begins.
export function close(app) {
  const words = app.words.part;
  const go = sending(app, words.close, "closed", { block: app.state.block.number });
  return sheet(app, "close", words.closing, p(words.closing_body), again(app), ending(go));
}

// The next block begins on a later day.
export function wait(app) {
  const { part: words, language } = app.words;
  const long = { dateStyle: "full", timeStyle: "short" };
  const opens = new Date(app.state.opens_utc).toLocaleString(language, long);
  if (!app.outbox.waiting.length) app.kept.clear();
  return sheet(app, "wait", words.waiting, p(fill(words.waiting_body, { opens })));
}

// A row of fields, one with a faint square; seen() says whether that field was chosen.
function pattern(words, name) {
  const [ground, square] = ROWS[name].map((grey) => `rgb(${grey},${grey},${grey})`);
  const numbers = Array.from({ length: FIELDS }, (_, n) => n + 1);
  const options = numbers.map((n) => [String(n), fill(words.field, { n })]);
  const group = choices(words[name], [...options, ["none", words.none]], { className: "fields" });
  const squares = options.map(() => h("span", {}));
  squares.forEach((inner, n) =>
    group.node.children[n].prepend(
      h("span", { className: "patch", style: `background: ${ground}` }, inner),
    ),
  );
  let odd = 0;
  const shuffle = () => {
    odd = crypto.getRandomValues(new Uint8Array(1))[0] % FIELDS;
    group.set([]);
    squares.forEach((inner, n) => (inner.style.background = n === odd ? square : "none"));
  };
  shuffle();
  const chosen = () => group.get()[0];
  const seen = () => chosen() === String(odd + 1);
  return { node: field(words[name], group.node), shuffle, chosen, seen };
}

function displayCheck(app) {
  const words = app.words.display;
  const rows = { dark: pattern(words, "dark"), light: pattern(words, "light") };
  const room = choices(words.room_light, Object.entries(words.room_lights));
  const device = choices(words.device, Object.entries(words.devices));
  const bar = h("div", { className: "card", style: `width: ${CARD.width}px` });
  let measured = 0;
  let attempts = 0;
  const oninput = () => ((measured = Number(slider.value)), (bar.style.width = `${measured}px`));
  const range = { type: "range", min: 150, max: 700, value: CARD.width };
  const slider = h("input", { ...range, "aria-label": words.slider, oninput });
  const go = primary(words.go_on, save);
  async function save() {
    const [room_light, used] = [room.get()[0], device.get()[0]];
    if (![rows.dark.chosen(), rows.light.chosen(), room_light, used].every(Boolean))
      return app.screen.notice(words.missing);
    app.screen.notice("");
    attempts += 1;
    const seen = { dark_seen: rows.dark.seen(), light_seen: rows.light.seen() };
    const steps_seen = seen.dark_seen && seen.light_seen;
    const offered = [
      ["pass", words.pass],
      ["", words.again, "primary"],
    ];
    if (!steps_seen && (await ask(words.warning, words.dim, offered)) !== "pass")
      return Object.values(rows).forEach((one) => one.shuffle());
    go.disabled = true;
    const { width, height, colorDepth } = window.screen;
    const checked = {
      ...seen,
      steps_seen,
      attempts,
      dark_step: ROWS.dark[1],
      light_step: 255 - ROWS.light[1],
      room_light,
      device: used,
      screen_width: width,
      screen_height: height,
      window_width: innerWidth,
      window_height: innerHeight,
      pixel_ratio: devicePixelRatio,
      color_depth: colorDepth,
      touch: navigator.maxTouchPoints > 0,
      browser: navigator.userAgent.slice(0, 300),
    };
    const per_cm = (measured * devicePixelRatio) / CARD.centimetres;
    if (measured) checked.pixels_per_cm = Math.round(per_cm * 100) / 100;
    return app.outbox.put("display", "", checked);
  }
  return sheet(
    app,
    "display",
    words.title,
    p(words.lead),
    rows.dark.node,
    rows.light.node,
    field(words.room_light, room.node),
    field(words.device, device.node),
    p(words.card),
    bar,
    slider,
    ending(go),
  );
}

// The answers that may still be changed.
function again({ words: { summary: words }, state, settings, openAnswer }) {
  const open = Object.keys(state.answers).filter((id) => !state.pictures[id].training);
  const look = (id) => {
    const { position: n, beside } = state.pictures[id];
    const named = fill(beside ? words.pair : words.image, { n });
    return button(named, () => openAnswer(id), { className: "choice" });
  };
  const part = ({ title, number }) => {
    const own = open.filter((id) => state.pictures[id].block === number);
    const buttons = h("div", { className: "choices" }, own.map(look));
    return own.length > 0 && [state.earlier.length > 0 && p(title), buttons];
  };
  if (!open.length || settings.going_back === "never") return false;
  const parts = [...state.earlier, state.block].map(part);
  return h("details", {}, h("summary", { text: words.again }), parts);
}

export function summary(app) {
  const { summary: words, signin } = app.words;
  const typed = { type: "text", autocomplete: "off", spellcheck: false, className: "code" };
  const code = h("input", { ...typed, "aria-label": signin.code });
  const lock = h("button", { type: "submit", className: "primary", text: words.lock });
  const message = { id: newId(), event: "locked", blind_id: "", payload: {}, browser_utc: now() };
  async function onsubmit(event) {
    event.preventDefault();
    lock.disabled = true;
    await app.outbox.empty();
    const { status, data, wait: seconds } = await app.server.record(message, code.value);
    lock.disabled = false;
    const problem = { 403: words.wrong, 429: fill(signin.wait, { seconds }) };
    if (status !== 200) return app.screen.notice(problem[status] ?? (data.error || signin.trouble));
    app.state = { ...app.state, ...data.state };
    return app.show();
  }
  const label = h("label", {}, signin.code, code);
  const form = h("form", { className: "lock", onsubmit }, p(words.lead), label, ending(lock));
  return sheet(app, "summary", words.title, p(words.body), again(app), form);
}

export function locked(app) {
  const words = app.words.locked;
  const { head: hash, reader: id } = app.state;
  if (!app.outbox.waiting.length) app.kept.clear();
  const head = h("code", { className: "head", text: hash });
  const copied = () => (copy.textContent = words.copied);
  const select = () => getSelection().selectAllChildren(head);
  // The browser has no clipboard for pages without TLS.
  const copy = button(words.copy, () =>
    navigator.clipboard ? navigator.clipboard.writeText(hash).then(copied, select) : select(),
  );
  const print = button(words.print, () => window.print());
  const who = p(fill(words.reader, { id }));
  return sheet(app, "locked", words.title, p(words.body), who, head, row(copy, print));
}

export function withdrawn(app) {
  if (!app.outbox.waiting.length) app.kept.clear();
  const { phase, withdrawn_by } = app.state;
  const [title, body] = app.words.ended[phase === "erased" ? "erased" : withdrawn_by];
  return sheet(app, "ended", title, p(body));
}

export { withdrawn as erased };
