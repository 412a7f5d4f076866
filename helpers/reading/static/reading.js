// The read: one image after another. The next one is shown at once; the outbox sees to the saving.
import { newId } from "./api.js";
import { ask, fill, h } from "./dom.js";
import { menu, savedState } from "./menu.js";
import { Panel } from "./panel.js";
import { Viewer } from "./viewer.js";

export class Reading {
  constructor(app, changing = "") {
    this.app = app;
    this.words = app.words.read;
    this.answered = new Map(); // answers given on this page that the state may not know yet
    this.block = changing ? app.blockOf(changing) : app.state.block;
    this.panel = new Panel(app, this.block.questions, () => this.submit());
    this.build();
    this.viewer = new Viewer(this.canvas, (viewer) => this.showWindow(viewer));
    this.keys = (event) => this.key(event);
    // A reload hides the page for a moment too: only a page that stays hidden is paused.
    this.hide = () => document.hidden && setTimeout(() => document.hidden && this.pause(), 400);
    document.addEventListener("keydown", this.keys);
    document.addEventListener("visibilitychange", this.hide);
    window.addEventListener("pagehide", (this.away = () => this.keepTime()));
    changing ? this.change(changing) : this.next();
    if (app.state.paused) this.pause(false);
  }

  leave() {
    document.removeEventListener("keydown", this.keys);
    document.removeEventListener("visibilitychange", this.hide);
    window.removeEventListener("pagehide", this.away);
  }

  build() {
    const { tools } = this.app.words;
    const tool = (name, onclick, text = tools[name], label = text) => h("button", { type: "button", className: "tool", text, onclick, title: label, "aria-label": label, "data-tool": name });
    const quiet = (text, onclick) => h("button", { type: "button", className: "quiet", text, onclick });
    this.canvas = h("canvas", { className: "picture", tabIndex: 0, "aria-label": tools.label });
    this.loading = h("p", { className: "loading", role: "status", hidden: true });
    this.windowText = h("span", { className: "window" });
    const presets = ["auto", "soft", "hard", "dark", "light"].map((name) => tool(name, () => this.viewer.preset(name)));
    const bar = h("div", { className: "tools", role: "toolbar", "aria-label": tools.label }, presets, h("i"),
      tool("invert", () => this.viewer.invert()),
      tool("zoom_out", () => this.viewer.zoomBy(0.8), "−", tools.zoom_out),
      tool("zoom_in", () => this.viewer.zoomBy(1.25), "+", tools.zoom_in),
      tool("actual", () => this.viewer.actualSize(), tools.actual, tools.actual_size),
      tool("reset", () => this.viewer.reset()),
      tool("full_screen", () => this.fullScreen()),
      tool("help", () => this.help()));
    this.progress = h("strong", { className: "progress" });
    this.kind = h("span", { className: "kind" });
    this.meter = h("progress", { max: 1, value: 0 });
    this.saved = h("span", { className: "saved", role: "status", "aria-live": "polite" });
    this.back = quiet(this.words.previous, () => this.change(this.last()));
    this.keep = quiet(this.words.keep, () => this.leaveChange());
    const pause = h("button", { type: "button", text: tools.pause, onclick: () => this.pause(), "data-tool": "pause" });
    const between = (...nodes) => h("div", { className: "row between" }, nodes);
    const panel = h("aside", { className: "panel" },
      h("header", {}, between(this.progress, pause), this.meter, between(this.kind, this.saved)),
      this.panel.node,
      h("div", { className: "finish" }, this.panel.problem, this.panel.go, between(this.back, this.keep)),
      h("footer", {}, menu(this.app)));
    const film = h("div", { className: "film" }, this.canvas, this.loading);
    const stage = h("section", { className: "stage", "aria-label": tools.label }, bar, film, h("div", { className: "under" }, this.windowText));
    this.app.root.replaceChildren(h("div", { className: "read", onclick: (event) => this.clicked(event) }, stage, panel));
  }

  // After a click the keys are the reader's again: Enter saves, and does not press the same button once more.
  clicked(event) {
    if (event.detail && event.target.closest(".choice, .tool") && !document.querySelector("dialog[open]")) this.canvas.focus({ preventScroll: true });
  }

  // The first image that has no answer, neither saved nor on its way.
  first() {
    const { state, outbox } = this.app;
    return [state.current, ...state.next].find((id) => id && !this.answered.has(id) && !outbox.has("answered", id)) ?? "";
  }

  // The answer that may be changed from here: the last one, and until the lock, from each answer the one before it.
  last() {
    const { state, settings } = this.app;
    if (settings.going_back === "never" || this.block.tell_truth) return "";
    if (!this.changing) return [...this.answered.keys()].filter((id) => id !== this.current).pop() ?? state.last;
    const own = Object.keys(state.answers).filter((id) => state.pictures[id].block === this.block.number);
    const given = [...new Set([...own, ...this.answered.keys()])];
    return settings.going_back === "until locked" ? (given[given.indexOf(this.current) - 1] ?? "") : "";
  }

  needs(id) {
    return id === this.current || id === this.last();
  }

  async next() {
    const id = this.first();
    this.changing = false;
    this.current = id;
    this.draws = (this.draws ?? 0) + 1;
    const turn = this.draws;
    if (!id) {
      this.cover(this.words.loading);
      if (!this.app.outbox.waiting.length && this.app.state.phase !== "read") this.app.show();
      return;
    }
    this.message = newId(); // made once for this image: a double click is the same message
    this.panel.open(id, null, false);
    this.heading();
    this.canvas.focus({ preventScroll: true }); // out of the text, so that the keys are keys again
    await this.see(id, turn);
  }

  // Put an image on the screen; the clock starts when it is painted. again: the page has looked where the reader is.
  async see(id, turn, again = false) {
    const coming = this.app.fetchImage(id);
    if (!coming.ready) this.cover(this.words.loading);
    const ready = coming.ready ?? (await coming);
    if (turn !== this.draws) return undefined;
    if (!ready) return this.notOpen(id, turn, again);
    this.cover("");
    this.viewer.show(ready);
    requestAnimationFrame(() => requestAnimationFrame(() => this.painted(id, turn)));
  }

  // The server does not give this image: once what is waiting is saved it may, or the reader is elsewhere by now.
  async notOpen(id, turn, again) {
    await this.app.outbox.empty(2000);
    if (turn !== this.draws) return undefined;
    if (again && !this.app.outbox.waiting.length) return this.cover(this.words.no_image);
    if (!this.changing) await this.app.lookAgain();
    return turn === this.draws ? this.see(id, turn, true) : undefined;
  }

  painted(id, turn) {
    if (turn !== this.draws) return;
    this.seconds = this.changing ? 0 : Number(this.app.kept.get("-seconds", id) ?? 0);
    this.since = this.paused ? 0 : performance.now();
    this.app.outbox.put("shown", id, { ...this.viewer.view(), milliseconds: Math.round(performance.now()) });
    this.canvas.dataset.shown = id;
  }

  // A sentence in place of the image; "" takes it away.
  cover(sentence) {
    this.loading.hidden = !sentence;
    this.loading.textContent = sentence;
    if (sentence) {
      this.viewer.clear();
      delete this.canvas.dataset.shown;
    }
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
    this.progress.textContent = this.changing ? fill(this.words.changing, { n }) : words;
    this.kind.textContent = about.training ? `${kind}, ${this.words.not_scored}` : kind;
    Object.assign(this.meter, { max: of, value: n - 1, ariaLabel: words });
    this.back.textContent = this.changing ? this.words.earlier : this.words.previous;
    show(this.back, editable && !(other && other.training !== about.training && about.training));
    show(this.keep, this.changing);
  }

  time() {
    return Math.round(((this.seconds ?? 0) + (this.since ? (performance.now() - this.since) / 1000 : 0)) * 100) / 100;
  }

  keepTime() {
    if (this.current && !this.changing && this.since) this.app.kept.put("-seconds", this.current, this.time());
  }

  submit() {
    if (this.panel.lacks()) return undefined;
    if (!this.current || this.canvas.dataset.shown !== this.current || this.paused) return undefined;
    const id = this.current;
    const about = this.app.state.pictures[id];
    const answer = { ...this.panel.get(), seconds: this.time(), ...this.viewer.view() };
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
    while (!(await this.app.outbox.empty()) && !this.app.outbox.stopped);
    const { title, body, yours, go_on } = this.app.words.told;
    const { question } = this.panel.fields.entries.find((entry) => entry.question.id === "label") ?? {};
    const named = (value) => question?.options.find(([one]) => one === value)?.[1] ?? value;
    const truth = this.app.state.truth?.[id];
    const given = question && h("p", { text: fill(yours, { answer: named(answer.label) }) });
    if (truth) await ask(title, h("div", {}, h("p", { className: "truth", text: fill(body, { truth: named(truth) }) }), given), [["go", go_on, "primary"]], "beside");
    this.release();
    return this.next();
  }

  // What may come between two images: the end of the training, a suggested break.
  async between(about) {
    const { state, settings, words } = this.app;
    const after = state.pictures[this.current];
    if (about?.training && after && !after.training) {
      this.hold();
      await ask(words.training.title, words.training.body, [["go", words.training.go_on, "primary"]]);
      this.release();
    } else if (about && !about.training && settings.break_after && about.position % settings.break_after === 0 && about.position < state.total) {
      this.hold();
      const { title, body, pause, go_on } = words.rest;
      const chosen = await ask(title, fill(body, { n: about.position }), [["pause", pause], ["go", go_on, "primary"]]);
      this.release();
      if (chosen === "pause") this.pause();
    }
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
    const words = this.app.words.pause;
    if (tell) this.app.outbox.put("paused", this.current, { seconds: this.seconds });
    this.app.root.classList.add("covered");
    const began = performance.now();
    await ask(words.title, words.body, [["go", words.go_on, "primary"]]);
    this.app.root.classList.remove("covered");
    this.app.outbox.put("resumed", this.current, { seconds: Math.round((performance.now() - began) / 1000) });
    this.app.state.paused = false;
    this.release();
  }

  change(id) {
    const earlier = this.answered.get(id) ?? this.app.state.answers[id];
    if (!id || !earlier) return;
    this.keepTime();
    this.changing = true;
    this.current = id;
    this.message = newId();
    this.panel.open(id, earlier, true);
    this.heading();
    this.draws = (this.draws ?? 0) + 1;
    this.see(id, this.draws);
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

  // Beside its image each number begins the same for every image: none of them is to give an image away.
  showWindow(viewer) {
    if (viewer.picture) this.windowText.textContent = fill(this.app.words.tools.window, viewer.relative());
  }

  fullScreen() {
    document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen?.().catch(() => {});
  }

  async help() {
    const { help, page } = this.app.words;
    const own = Object.entries(this.panel.fields.keys).map(([key, [, text]]) => [key.toUpperCase(), text]);
    const rows = [...own, ...help.rows].map(([keys, what]) => h("tr", {}, h("th", { scope: "row", text: keys }), h("td", { text: what })));
    await ask(help.title, h("table", { className: "keys" }, h("tbody", {}, rows)), [["", page.close, "primary"]]);
  }

  key(event) {
    if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
    const writing = event.target.matches("textarea, input");
    if (event.key === "Escape" && writing) return event.target.blur();
    if (event.key === "Enter" && !event.shiftKey && (writing || !event.target.matches("button"))) {
      event.preventDefault();
      return event.repeat ? undefined : this.submit();
    }
    if (writing) return undefined;
    const act = this.shortcut(event.key.length === 1 ? event.key.toLowerCase() : event.key);
    if (!act || (event.repeat && !event.key.startsWith("Arrow"))) return undefined;
    event.preventDefault();
    return act();
  }

  shortcut(key) {
    const { viewer, panel } = this;
    if (panel.fields.keys[key]) return panel.fields.keys[key][0];
    return {
      a: () => viewer.preset("auto"),
      s: () => viewer.preset("soft"),
      h: () => viewer.preset("hard"),
      i: () => viewer.invert(),
      0: () => viewer.reset(),
      z: () => viewer.actualSize(),
      x: () => this.fullScreen(),
      p: () => this.pause(),
      "?": () => this.help(),
      "+": () => viewer.zoomBy(1.25),
      "-": () => viewer.zoomBy(0.8),
      ArrowLeft: () => viewer.panBy(40, 0),
      ArrowRight: () => viewer.panBy(-40, 0),
      ArrowUp: () => viewer.panBy(0, 40),
      ArrowDown: () => viewer.panBy(0, -40),
    }[key];
  }
}

// Seen or not, a button keeps its place: nothing jumps.
function show(button, seen) {
  button.style.visibility = seen ? "visible" : "hidden";
}
