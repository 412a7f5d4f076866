// The screens before and after the read: consent, registration, instructions, display check, summary, lock.
import { call, newId, now } from "./api.js";
import { Reading } from "./reading.js";
import { ask, choices, h } from "./dom.js";

const STEPS = ["consent", "registration", "instructions", "display"];

// A calm sheet with a title, its body and the way on.
function sheet(app, step, title, ...body) {
  const steps = h(
    "ol",
    { className: "steps", "aria-label": app.texts[step]?.step ?? title },
    STEPS.includes(step) && STEPS.map((name) => h("li", { "aria-current": name === step ? "step" : null, text: app.texts[name].step })),
  );
  const problem = h("p", { className: "problem", role: "alert" });
  const main = h("main", { className: "sheet" }, h("p", { className: "study", text: app.told.title }), steps, h("h1", { text: title, tabIndex: -1 }), body, problem);
  const saved = h("span", { className: "saved", role: "status" });
  app.root.replaceChildren(h("div", { className: "scroll" }, main), h("footer", { className: "foot" }, saved, menu(app)));
  main.querySelector("h1").focus({ preventScroll: true });
  return {
    say: (text) => (problem.textContent = text),
    notice: (text) => (problem.textContent = text),
    waiting: (count, trouble) => savedState(app, saved, count, trouble, false),
  };
}

export function savedState(app, node, count, trouble, always = true) {
  const words = app.texts.saved;
  const state = !count ? "saved" : trouble ? "trouble" : "saving";
  node.dataset.state = state;
  node.textContent = state === "saved" ? (always ? words.saved : "") : state === "saving" ? words.saving : trouble === "storage" ? words.storage : words.waiting(count);
}

export function menu(app) {
  const words = app.texts;
  const open = app.state.phase !== "withdrawn" && app.state.phase !== "consent";
  return h(
    "span",
    { className: "row" },
    open && h("button", { type: "button", className: "quiet", text: words.withdraw.open, onclick: () => withdraw(app) }),
    h("button", { type: "button", className: "quiet", text: words.page.signOut, onclick: () => signOut(app) }),
  );
}

async function signOut(app) {
  await app.outbox.empty(5000);
  await call("logout", {});
  location.assign(`${document.body.dataset.reading}login`);
}

async function withdraw(app) {
  const words = app.texts.withdraw;
  const reason = h("textarea", { rows: 2, maxLength: 500, "aria-label": words.reason });
  const body = h("div", {}, h("p", { text: words.body }), h("label", {}, words.reason, reason));
  if ((await ask(words.title, body, [["", app.texts.page.cancel], ["yes", words.yes, "danger"]])) === "yes") app.outbox.put("withdrawn", "", { reason: reason.value });
}

export function consent(app) {
  const words = app.texts.consent;
  const agree = h("input", { type: "checkbox", id: "agree", onchange: () => (go.disabled = !agree.checked) });
  const go = h("button", { type: "button", className: "primary", disabled: true, text: words.go_on, onclick: () => ((go.disabled = true), app.outbox.put("consented", "", { language: app.texts.language })) });
  const facts = ["protocol", "ethics", "contact"].filter((name) => app.told[name]).map((name) => [h("dt", { text: words[name] }), h("dd", { text: app.told[name] })]);
  return sheet(app, "consent", words.title, h("p", { className: "text", text: app.told.consent }), h("dl", {}, facts), h("label", { className: "check" }, agree, words.agree), h("div", { className: "row end" }, go));
}

export function registration(app) {
  const words = app.texts.registration;
  const years = h("input", { type: "number", min: 0, max: 80, step: 1, inputMode: "numeric", name: "years" });
  const specialty = h("input", { type: "text", maxLength: 120, name: "specialty" });
  const prior = choices(words.prior, [["yes", words.yes], ["no", words.no]]);
  const told = h("input", { type: "text", maxLength: 500, name: "prior" });
  const go = h("button", { type: "button", className: "primary", text: words.go_on, onclick: save });
  function save() {
    const known = prior.get()[0];
    if (years.value === "" || !years.checkValidity() || !specialty.value.trim() || !known) return screen.say(words.missing);
    go.disabled = true;
    app.outbox.put("registered", "", { years: Number(years.value), specialty: specialty.value, prior_ai: known === "yes", prior_ai_words: told.value });
    return undefined;
  }
  const fields = [h("label", {}, words.years, years), h("label", {}, words.specialty, specialty), h("div", { className: "field" }, h("span", { text: words.prior }), prior.node), h("label", {}, words.words, told)];
  const screen = sheet(app, "registration", words.title, h("p", { text: words.lead }), fields, h("div", { className: "row end" }, go));
  return screen;
}

export function instructions(app) {
  const words = app.texts.instructions;
  const points = h("ul", {}, words.points(app.told).map((text) => h("li", { text })));
  const go = h("button", { type: "button", className: "primary", text: words.go_on, onclick: () => (app.screen = display(app)) });
  return sheet(app, "instructions", words.title, h("p", { className: "text", text: app.told.instructions }), points, h("div", { className: "row end" }, go));
}

function display(app) {
  const words = app.texts.display;
  const step = (grey, inner) => h("div", { className: "patch", style: `background: rgb(${grey},${grey},${grey})` }, h("span", { style: `background: rgb(${inner},${inner},${inner})` }));
  const ramp = h("div", { className: "ramp", "aria-hidden": "true" }, Array.from({ length: 18 }, (_, n) => h("span", { style: `background: rgb(${n * 15},${n * 15},${n * 15})` })));
  const seen = choices(words.seen, [["both", words.both], ["not", words.not_both]], { changed: () => (hint.hidden = seen.get()[0] !== "not") });
  const hint = h("p", { className: "hint", hidden: true, text: words.dim });
  const bar = h("div", { className: "card", style: "width: 323px" });
  let measured = 0;
  const slider = h("input", { type: "range", min: 150, max: 700, value: 323, "aria-label": words.slider, oninput: () => ((measured = Number(slider.value)), (bar.style.width = `${slider.value}px`)) });
  const go = h("button", { type: "button", className: "primary", text: words.go_on, onclick: save });
  function save() {
    if (!seen.get().length) return screen.say(words.missing);
    go.disabled = true;
    const told = {
      steps_seen: seen.get()[0] === "both",
      screen_width: screen_.width, screen_height: screen_.height, window_width: innerWidth, window_height: innerHeight,
      pixel_ratio: devicePixelRatio, color_depth: screen_.colorDepth, touch: navigator.maxTouchPoints > 0, browser: navigator.userAgent.slice(0, 300),
    };
    if (measured) told.pixels_per_cm = Math.round((measured * devicePixelRatio * 100) / 8.56) / 100;
    app.outbox.put("display", "", told);
    return undefined;
  }
  const screen_ = window.screen;
  const screen = sheet(app, "display", words.title, h("p", { text: words.dark }), h("div", { className: "patches" }, step(0, 13), step(255, 242)), ramp,
    h("div", { className: "field" }, h("span", { text: words.seen }), seen.node), hint, h("p", { text: words.card }), bar, slider, h("div", { className: "row end" }, go));
  return screen;
}

export function summary(app) {
  const words = app.texts.summary;
  const code = h("input", { type: "text", autocomplete: "off", spellcheck: false, className: "code", "aria-label": app.texts.signin.code });
  const lock = h("button", { type: "submit", className: "primary", text: words.lock });
  const form = h("form", { className: "lock", onsubmit: sign }, h("p", { text: words.lead }), h("label", {}, app.texts.signin.code, code), h("div", { className: "row end" }, lock));
  const message = { id: newId(), event: "locked", blind_id: "", payload: {}, browser_utc: now() };
  async function sign(event) {
    event.preventDefault();
    lock.disabled = true;
    await app.outbox.empty();
    const { status, data, wait } = await call("reading/record", { message, code: code.value });
    lock.disabled = false;
    if (status === 200) {
      app.state = { ...app.state, ...data.state };
      app.show();
    } else screen.say(status === 403 ? words.wrong : status === 429 ? app.texts.signin.wait(wait) : data.error || app.texts.signin.trouble);
  }
  const open = Object.keys(app.state.answers).filter((id) => !app.state.pictures[id].training);
  const again = open.length > 0 && app.told.going_back !== "never" && h("details", {}, h("summary", { text: words.again }), h("div", { className: "choices" }, open.map((id) => h("button", { type: "button", className: "choice", text: words.image(app.state.pictures[id].position), onclick: () => change(app, id) }))));
  const screen = sheet(app, "summary", words.title, h("p", { text: words.body(app.state.total) }), again, form);
  return screen;
}

function change(app, id) {
  app.fetchOne(id);
  app.root.replaceChildren();
  app.screen = new Reading(app, id);
}

export function locked(app) {
  const words = app.texts.locked;
  const head = h("code", { className: "head", text: app.state.head });
  const copy = h("button", { type: "button", text: words.copy, onclick: async () => {
    await navigator.clipboard?.writeText(app.state.head).catch(() => getSelection().selectAllChildren(head));
    copy.textContent = words.copied;
  } });
  return sheet(app, "locked", words.title, h("p", { text: words.body }), h("p", { text: words.reader(app.state.reader) }), head, h("div", { className: "row" }, copy, h("button", { type: "button", text: words.print, onclick: () => print() })));
}

export function withdrawn(app) {
  return sheet(app, "withdrawn", app.texts.withdraw.title.replace("?", ""), h("p", { text: app.texts.withdraw.done }));
}

