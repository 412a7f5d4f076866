// Marks on the image: a tap makes a point, a drag a box. They are kept in pixels of the image,
// whatever the zoom.
import { button, choices, fill, h } from "./dom.js";

const MOST = 20;
const TAP = 6; // screen pixels: a shorter drag is a tap
const STEP = 1 / 40; // of the image, for the keys
const [PLAIN, CHOSEN] = ["#56b4e9", "#f0c674"]; // colours of marks
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const tool = (text, onclick, more) => button(text, onclick, { className: "choice", ...more });
const round = (value) => Math.round(value * 100) / 100;
const within = (value, most) => round(Math.min(Math.max(value, 0), most));

// The field of one question of the kind "marks"; attach() gives it the viewer of its image.
export class Marks {
  constructor(question, words, changed) {
    Object.assign(this, { words, changed, marks: [], chosen: -1, cursor: null, begun: null });
    this.toggle = tool(words.mark, () => this.turn(), { "data-value": "mark" });
    this.undo = tool(words.undo, () => this.remove(), { "data-value": "undo" });
    this.said = h("p", { className: "hint", role: "status" });
    this.list = h("div", { className: "choices small", role: "group", "aria-label": words.list });
    const named = { className: "small", changed: () => this.name() };
    this.cues = choices(words.cue, question.options, named);
    const asked = h("span", { className: "hint", text: words.cue });
    const cue = question.options.length > 0 && [asked, this.cues.node];
    this.cueField = h("div", { className: "cues" }, cue);
    const tools = h("div", { className: "row" }, this.toggle, this.undo);
    this.node = h("div", { className: "marks" }, tools, this.said, this.list, this.cueField);
    this.set([]);
  }

  attach(viewer) {
    this.viewer = viewer;
    viewer.overlays.push((ctx, place, ratio) => this.draw(ctx, place, ratio));
  }

  get() {
    return this.marks.map((mark) => ({ ...mark }));
  }

  set(given) {
    this.marks = (Array.isArray(given) ? given : []).map((mark) => ({ ...mark }));
    this.begun = this.cursor = null;
    this.turn(false);
    this.choose(this.marks.length - 1);
  }

  // The other answers show or hide this question. While it is hidden, no mark is made or shown.
  seen(shown) {
    if (!shown && this.on) this.turn(false);
    this.viewer?.redraw();
  }

  // Switch marking on or off. While it is off, a drag sets the window.
  turn(on = !this.on) {
    this.on = on;
    this.toggle.setAttribute("aria-pressed", String(on));
    this.hint();
    if (!this.viewer) return;
    if (on && this.viewer.marker && this.viewer.marker !== this) this.viewer.marker.turn(false);
    if (on || this.viewer.marker === this) this.viewer.marker = on ? this : null;
    this.viewer.canvas.classList.toggle("marking", on);
    if (!on) this.cursor = null;
    this.viewer.redraw();
  }

  hint() {
    const { how, most } = this.words;
    const text = this.marks.length < MOST ? how : fill(most, { n: MOST });
    this.said.textContent = this.on ? text : "";
  }

  choose(n) {
    this.chosen = n;
    this.hint();
    const { box, point } = this.words;
    const listed = this.marks.map((mark, number) => {
      const text = fill(mark.w || mark.h ? box : point, { n: number + 1 });
      return tool(text, () => this.choose(number), { "aria-pressed": String(number === n) });
    });
    this.list.replaceChildren(...listed);
    this.undo.disabled = !this.marks.length;
    this.cueField.hidden = !this.marks.length;
    this.cues.set([this.marks[n]?.cue].filter(Boolean));
    this.viewer?.redraw();
  }

  name() {
    const mark = this.marks[this.chosen];
    if (!mark) return;
    mark.cue = this.cues.get()[0] ?? "";
    this.changed();
  }

  add(mark) {
    if (this.marks.length >= MOST) return;
    this.marks.push(mark);
    this.choose(this.marks.length - 1);
    this.changed();
  }

  // Remove the chosen mark. Right after a mark is made, this undoes it.
  remove() {
    if (!this.marks.length) return;
    this.marks.splice(this.chosen, 1);
    this.choose(this.marks.length - 1);
    this.changed();
  }

  // --- by mouse, pen or finger: a mark reaches from where the pointer came down to where it is

  begin(at) {
    this.begun = { from: at, to: at };
  }

  stretch(at) {
    if (!this.begun) return;
    this.begun.to = at;
    this.viewer.redraw();
  }

  cancel() {
    this.begun = null;
  }

  end() {
    if (!this.begun) return;
    const { from, to } = this.begun;
    this.begun = null;
    const far = Math.max(Math.abs(from.x - to.x), Math.abs(from.y - to.y));
    this.add(this.viewer.onScreen(far) < TAP ? this.point(from) : this.box(from, to));
  }

  point({ x, y }) {
    return { x: round(x), y: round(y), w: 0, h: 0, cue: "" };
  }

  box(a, b) {
    const [x, y] = [Math.min(a.x, b.x), Math.min(a.y, b.y)].map(round);
    return { x, y, w: round(Math.max(a.x, b.x) - x), h: round(Math.max(a.y, b.y) - y), cue: "" };
  }

  // --- by keys, while marking: arrows move a cross, space marks its place, and shift with arrows
  // enlarges the chosen mark

  key({ key, shiftKey }) {
    if (!this.on || !this.viewer.picture) return false;
    const { width, height } = this.viewer.picture;
    const at = this.cursor ?? { x: width / 2, y: height / 2 };
    const [dx, dy] = (ARROWS[key] ?? [0, 0]).map((step, n) => step * STEP * [width, height][n]);
    const mark = this.marks[this.chosen];
    if (key === "Backspace" || key === "Delete") this.remove();
    else if (key === " ") this.add(this.point(at));
    else if (!ARROWS[key]) return false;
    else if (shiftKey && mark) {
      mark.w = within(mark.w + dx, width - mark.x);
      mark.h = within(mark.h + dy, height - mark.y);
      this.choose(this.chosen);
      this.changed();
    } else {
      this.cursor = { x: within(at.x + dx, width), y: within(at.y + dy, height) };
      this.viewer.redraw();
    }
    return true;
  }

  // place(x, y): a pixel of the image on the canvas; ratio: canvas pixels per screen pixel.
  draw(ctx, place, ratio) {
    if (this.node.closest("[hidden]")) return;
    const moving = this.begun ? [this.box(this.begun.from, this.begun.to)] : [];
    [...this.marks, ...moving].forEach((mark, n) => {
      const colour = n === this.chosen || mark === moving[0] ? CHOSEN : PLAIN;
      outline(ctx, place, mark, ratio, "#000", 4);
      outline(ctx, place, mark, ratio, colour, 2);
    });
    if (!this.cursor) return;
    const [x, y] = place(this.cursor.x, this.cursor.y);
    Object.assign(ctx, { strokeStyle: CHOSEN, lineWidth: 2 * ratio });
    ctx.beginPath();
    for (const [dx, dy] of Object.values(ARROWS)) {
      ctx.moveTo(x + 3 * dx * ratio, y + 3 * dy * ratio);
      ctx.lineTo(x + 12 * dx * ratio, y + 12 * dy * ratio);
    }
    ctx.stroke();
  }
}

function outline(ctx, place, { x, y, w, h: high }, ratio, strokeStyle, width) {
  Object.assign(ctx, { strokeStyle, lineWidth: width * ratio });
  const [left, top] = place(x, y);
  const [right, bottom] = place(x + w, y + high);
  ctx.beginPath();
  if (w || high) ctx.rect(left, top, right - left, bottom - top);
  else ctx.arc(left, top, 8 * ratio, 0, 2 * Math.PI);
  ctx.stroke();
}
