// The read: one image after another. The next image is shown immediately; the outbox saves.
import { newId } from "./api.js";
import { ask, button, fill, h, p } from "./dom.js";
import { Films } from "./films.js";
import { help, press } from "./keys.js";
import { menu, savedState } from "./menu.js";
import { Panel } from "./panel.js";

export class Reading {
  constructor(app, changing = "") {
    this.app = app;
    this.words = app.words.read;
    this.answered = new Map(); // answers given on this page that the state may not know yet
    this.block = changing ? app.blockOf(changing) : app.state.block;
    this.panel = new Panel(app, this.block.questions, () => this.submit());
    this.build();
    this.films.begin();
    this.marks = this.panel.fields.entries.map(({ marks }) => marks).filter(Boolean);
    for (const marks of this.marks) marks.attach(this.viewer);
    this.listening = new AbortController();
    const { signal } = this.listening;
    // A reload hides the page for a moment too: only a page that stays hidden is paused.
    const hide = () => document.hidden && setTimeout(() => document.hidden && this.pause(), 400);
    document.addEventListener("keydown", (event) => press(this, event), { signal });
    document.addEventListener("visibilitychange", hide, { signal });
    window.addEventListener("pagehide", () => this.keepTime(), { signal });
    changing ? this.change(changing) : this.next();
    if (app.state.paused) this.pause(false);
  }

  get viewer() {
    return this.films.viewer;
  }

  leave() {
    this.listening.abort();
  }

  build() {
    const { tools } = this.app.words;
    const tool = (name, onclick, text = tools[name], label = text) => {
      const about = { className: "tool", title: label, "aria-label": label, "data-tool": name };
      return button(text, onclick, about);
    };
    const quiet = (text, onclick) => button(text, onclick, { className: "quiet" });
    const between = (...nodes) => h("div", { className: "row between" }, nodes);
    this.films = new Films(this.app, this.block, this.panel, (viewer) => this.showWindow(viewer));
    this.canvas = this.films.canvas;
    this.windowText = h("span", { className: "window" });
    const presets = ["auto", "soft", "hard", "dark", "light"];
    const bar = h(
      "div",
      { className: "tools", role: "toolbar", "aria-label": tools.label },
      presets.map((name) => tool(name, () => this.viewer.preset(name))),
      h("i"),
      tool("invert", () => this.viewer.invert()),
      tool("zoom_out", () => this.viewer.zoomBy(0.8), "−", tools.zoom_out),
      tool("zoom_in", () => this.viewer.zoomBy(1.25), "+", tools.zoom_in),
      tool("actual", () => this.viewer.actualSize(), tools.actual, tools.actual_size),
      tool("reset", () => this.viewer.reset()),
      this.films.linking,
      tool("full_screen", () => this.fullScreen()),
      tool("help", () => help(this)),
    );
    this.progress = h("strong", { className: "progress" });
    this.kind = h("span", { className: "kind" });
    this.meter = h("progress", { max: 1, value: 0 });
    this.saved = h("span", { className: "saved", role: "status", "aria-live": "polite" });
    this.back = quiet(this.words.previous, () => this.change(this.last()));
    this.keep = quiet(this.words.keep, () => this.leaveChange());
    const pause = button(tools.pause, () => this.pause(), { "data-tool": "pause" });
    const { node, problem, go } = this.panel;
    const panel = h(
      "aside",
      { className: "panel" },
      h("header", {}, between(this.progress, pause), this.meter, between(this.kind, this.saved)),
      node,
      h("div", { className: "finish" }, problem, go, between(this.back, this.keep)),
      h("footer", {}, menu(this.app)),
    );
    const under = h("div", { className: "under" }, this.windowText);
    const about = { className: "stage", "aria-label": tools.label };
    const stage = h("section", about, bar, this.films.node, under);
    const onclick = (event) => this.clicked(event);
    this.app.root.replaceChildren(h("div", { className: "read", onclick }, stage, panel));
  }

  // After a click the keys work again: Enter saves, and does not press the same button again.
  clicked({ detail, target }) {
    if (detail && target.closest(".choice, .tool") && !document.querySelector("dialog[open]"))
      this.canvas.focus({ preventScroll: true });
  }

  // The first image that has no answer, neither saved nor on its way.
  first() {
    const { state, outbox } = this.app;
    const open = (id) => id && !this.answered.has(id) && !outbox.has("answered", id);
    return [state.current, ...state.next].find(open) ?? "";
  }

  // The answer that may be changed from here: the last one. If changes are allowed until the lock,
  // also the answer before each answer.
  last() {
    const { state, settings } = this.app;
    if (settings.going_back === "never" || this.block.tell_truth) return "";
    if (!this.changing)
      return [...this.answered.keys()].filter((id) => id !== this.current).pop() ?? state.last;
    if (settings.going_back !== "until locked") return "";
    const here = (id) => state.pictures[id].block === this.block.number;
    const own = Object.keys(state.answers).filter(here);
    const given = [...new Set([...own, ...this.answered.keys()])];
    return given[given.indexOf(this.current) - 1] ?? "";
  }

  needs(id) {
    return [this.current, this.last()].flatMap(this.app.both).includes(id);
  }

  async next() {
    const id = this.first();
    if (!id) {
      this.take("", false);
      this.films.cover(this.words.loading);
      if (!this.app.outbox.waiting.length && this.app.state.phase !== "read") this.app.show();
      return;
    }
    const turn = this.take(id, false);
    this.panel.open(id, null, false);
    this.heading();
    this.canvas.focus({ preventScroll: true }); // out of the text field, so that keys are commands
    await this.see(id, turn);
  }

  // Begin an image's turn. Anything that the previous image still waits for is ignored. Returns
  // the id of the turn's message. It is made once: a double click is the same message.
  take(id, changing) {
    Object.assign(this, { current: id, changing, message: newId() });
    return this.message;
  }

  // Put an image on the screen; the clock starts when it is painted. again: the page has just asked
  // the server for the reader's position.
  async see(id, turn, again = false) {
    const coming = this.app.both(id).map(this.app.fetchImage);
    if (!coming.every(({ ready }) => ready)) this.films.cover(this.words.loading);
    const ready = this.films.loading.hidden
      ? coming.map((one) => one.ready)
      : await Promise.all(coming);
    if (turn !== this.message) return undefined;
    if (!ready.every(Boolean)) return this.notOpen(id, turn, again);
    this.films.cover("");
    this.films.show(ready);
    requestAnimationFrame(() => requestAnimationFrame(() => this.painted(id, turn)));
  }

  // An image did not arrive and is asked for again.
  late(id) {
    if (!this.films.loading.hidden && this.app.both(this.current).includes(id))
      this.films.cover(this.words.late);
  }

  // The server refuses this image. Either it will allow it once waiting messages are saved, or the
  // reader's position has changed.
  async notOpen(id, turn, again) {
    await this.app.outbox.empty(2000);
    if (turn !== this.message) return undefined;
    if (again && !this.app.outbox.waiting.length) return this.films.cover(this.words.no_image);
    if (!this.changing) await this.app.lookAgain();
    return turn === this.message ? this.see(id, turn, true) : undefined;
  }

  painted(id, turn) {
    if (turn !== this.message) return;
    this.seconds = this.changing ? 0 : Number(this.app.kept.get("-seconds", id) ?? 0);
    this.since = this.paused ? 0 : performance.now();
    const milliseconds = Math.round(performance.now());
    this.app.outbox.put("shown", id, { ...this.films.view(), milliseconds });
    this.canvas.dataset.shown = id;
  }

  heading() {
    const { state } = this.app;
    const about = state.pictures[this.current];
    if (!about) return;
    const of = about.training ? state.training_total : state.total;
    const n = about.position;
    const words = fill(about.training ? this.words.training : this.words.progress, { n, of });
    const kind = this.app.words.modality[about.modality] ?? about.modality;
    const editable = this.last();
    const other = state.pictures[editable];
    const { changing, changing_pair } = this.words;
    const changed = fill(this.block.pairs ? changing_pair : changing, { n });
    this.progress.textContent = this.changing ? changed : words;
    if (!this.block.pairs) this.canvas.ariaLabel = words;
    this.kind.textContent = about.training ? `${kind}, ${this.words.not_scored}` : kind;
    Object.assign(this.meter, { max: of, value: n - 1, ariaLabel: words });
    this.back.textContent = this.changing ? this.words.earlier : this.words.previous;
    show(this.back, editable && !(other && other.training !== about.training && about.training));
    show(this.keep, this.changing);
  }

  time() {
    const running = this.since ? performance.now() - this.since : 0;
    return Math.round((this.seconds ?? 0) * 100 + running / 10) / 100;
  }

  keepTime() {
    if (this.current && !this.changing && this.since)
      this.app.kept.put("-seconds", this.current, this.time());
  }

  submit() {
    const id = this.current;
    if (this.panel.lacks() || !id || this.canvas.dataset.shown !== id || this.paused)
      return undefined;
    const about = this.app.state.pictures[id];
    const answer = { ...this.panel.get(), seconds: this.time(), ...this.films.view() };
    this.answered.set(id, answer);
    this.app.outbox.put(this.changing ? "changed" : "answered", id, answer, this.message);
    for (const kind of ["-draft", "-seconds"]) this.app.kept.drop(kind, id);
    if (this.changing) return this.leaveChange();
    if (this.block.tell_truth) return this.tell(id, answer);
    this.next();
    return this.between(about);
  }

  // Say what the image is, once the answer is saved; the image stays in sight.
  async tell(id, answer) {
    this.hold();
    const asked = this.panel.fields.entries.find(({ question }) =>
      ["label", "which"].includes(question.id),
    );
    // As its buttons say it now: of a pair on a phone, with its place
    const buttons = [...(asked?.node.querySelectorAll(".choice") ?? [])];
    const names = Object.fromEntries(buttons.map((one) => [one.dataset.value, one.innerText]));
    const named = (value) => names[value] ?? value;
    while (!(await this.app.outbox.empty()) && !this.app.outbox.stopped);
    const { title, body, pair, yours, go_on } = this.app.words.told;
    const truth = this.app.state.truth?.[id];
    const said = fill(this.block.pairs ? pair : body, { truth: named(truth) });
    const given = asked && p(fill(yours, { answer: named(answer[asked.question.id]) }));
    const both = h("div", {}, p(said, "truth"), given);
    if (truth) await ask(title, both, [["go", go_on, "primary"]], "beside");
    this.release();
    return this.next();
  }

  // Screens between two images: the end of the training, a suggested break.
  async between(about) {
    const { state, settings, words } = this.app;
    const after = state.pictures[this.current];
    const n = about?.position;
    const trained = about?.training && after && !after.training;
    const rest = about && !about.training && n % settings.break_after === 0 && n < state.total;
    if (!trained && !rest) return;
    const { title, body, pause, go_on } = trained ? words.training : words.rest;
    const offered = [pause && ["pause", pause], ["go", go_on, "primary"]].filter(Boolean);
    this.hold();
    const chosen = await ask(title, fill(body, { n, of: state.total }), offered);
    this.release();
    if (chosen === "pause") this.pause();
  }

  hold() {
    this.seconds = this.time();
    this.since = 0;
    this.paused = true;
  }

  release() {
    this.paused = false;
    this.since = performance.now();
  }

  async pause(tell = true) {
    if (this.paused) return;
    this.keepTime();
    this.hold();
    const { root, outbox, words } = this.app;
    const { title, body, go_on } = words.pause;
    if (tell) outbox.put("paused", this.current, { seconds: this.seconds });
    root.classList.add("covered");
    const began = performance.now();
    await ask(title, body, [["go", go_on, "primary"]]);
    root.classList.remove("covered");
    const seconds = Math.round((performance.now() - began) / 1000);
    outbox.put("resumed", this.current, { seconds });
    this.app.state.paused = false;
    this.release();
  }

  change(id) {
    const earlier = this.answered.get(id) ?? this.app.state.answers[id];
    if (!id || !earlier) return;
    this.keepTime();
    const turn = this.take(id, true);
    this.panel.open(id, earlier, true);
    this.heading();
    this.see(id, turn);
  }

  leaveChange() {
    if (this.app.state.phase !== "read") return this.app.outbox.empty().then(() => this.app.show());
    return this.next();
  }

  // An acknowledgement came: perhaps the next image is known now.
  follow() {
    if (!this.current) this.next();
    else this.heading();
  }

  waiting(count, trouble) {
    savedState(this.app, this.saved, count, trouble);
  }

  notice(text) {
    this.panel.say(text);
  }

  // These numbers start with the same values for every image, so that they reveal nothing about it.
  showWindow(viewer) {
    if (viewer.picture)
      this.windowText.textContent = fill(this.app.words.tools.window, viewer.relative());
  }

  fullScreen() {
    document.fullscreenElement
      ? document.exitFullscreen()
      : document.documentElement.requestFullscreen?.().catch(() => {});
  }
}

// A hidden button keeps its place, so that nothing jumps.
function show(button, seen) {
  button.style.visibility = seen ? "visible" : "hidden";
}
