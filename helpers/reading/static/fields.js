// One field per question, in the study's order. A question that the other answers rule out is
// hidden and gives no answer.
import { choices, h } from "./dom.js";
import { Marks } from "./marks.js";

const LONGEST = 2000;
const TOOL_KEYS = "adhiqspxz"; // keys of the image's tools and fields: no option gets them

const empty = (value) =>
  value === undefined || value === "" || (Array.isArray(value) && !value.length);
const closed = (node) => node.closest("[hidden]"); // a key does nothing where nothing is asked
const said = (value) => (Array.isArray(value) ? value : [String(value ?? "")]);

export class Fields {
  // form: the questions have a page of their own, not beside an image.
  constructor(app, questions, changed = () => {}, form = false) {
    Object.assign(this, { words: app.words, form });
    this.changed = () => (this.refresh(), changed());
    this.keys = {}; // key -> [what it does, name for the list of keys]
    this.entries = questions.map((question) => ({ question, ...this.make(question) }));
    this.nodes = this.entries.map(({ node }) => node);
    this.refresh();
  }

  make(question) {
    const { kind, options, required } = question;
    if (kind === "text") return this.text(question);
    if (kind === "number") return this.number(question);
    if (kind === "yes/no" && !required) return this.tick(question);
    if (kind === "marks") return this.onImage(question);
    const { yes, no } = this.words.read;
    const names = { side: this.words.read, findings: this.words.findings }[kind] ?? {};
    const answers = kind === "yes/no" ? Object.entries({ true: yes, false: no }) : options;
    const offered = answers.map(([value, text]) => [value, names[value] ?? text]);
    const value = { scale: Number, "yes/no": (one) => one === "true" }[kind] ?? ((one) => one);
    const many = ["choices", "findings"].includes(kind);
    const short = !this.form && kind === "choice" && offered.length <= 3;
    const className =
      { scale: "steps-of", choice: short ? "labels" : "", "yes/no": "" }[kind] ?? "small";
    const pick = (one) => closed(group.node) || (group.set([one]), this.changed());
    const titled = kind === "choice" ? this.letters(offered, pick) : offered;
    if (kind === "scale") this.digits(offered, pick);
    const group = choices(question.text, titled, { many, changed: this.changed, className });
    return {
      node: this.field(question, group.node, kind === "side" ? "inline" : ""),
      get: () => (many ? group.get() : group.get().map(value)[0]),
      set: (given) => group.set(empty(given) ? [] : said(given)),
    };
  }

  // The first choice of a page is picked by letters: each option gets its first free letter.
  letters(offered, pick) {
    if (this.lettered || this.form) return offered;
    this.lettered = true;
    return offered.map(([value, text]) => {
      const free = (one) => /[a-z]/.test(one) && !TOOL_KEYS.includes(one) && !this.keys[one];
      const key = [...text.toLowerCase()].find(free);
      if (key) this.keys[key] = [() => pick(value), text];
      return [value, text, key?.toUpperCase()];
    });
  }

  digits(offered, pick) {
    if (this.keys[1] || this.form) return;
    for (const [value, text] of offered) this.keys[value] = [() => pick(value), text];
  }

  text(question) {
    const more = this.form ? { type: "text", name: question.id } : { rows: 2 };
    const common = { maxLength: LONGEST, id: question.id, oninput: this.changed };
    const input = h(this.form ? "input" : "textarea", { ...more, ...common });
    if (!this.form) this.keys.d ??= [() => input.focus(), question.text];
    const get = () => input.value.trim();
    return { node: this.field(question, input), get, set: (given) => (input.value = given ?? "") };
  }

  number(question) {
    const { id } = question;
    const range = { type: "number", min: 0, max: 1000, step: "any", inputMode: "decimal" };
    const input = h("input", { ...range, name: id, id, oninput: this.changed });
    const get = () => (input.value === "" || !input.checkValidity() ? "" : Number(input.value));
    return { node: this.field(question, input), get, set: (given) => (input.value = given ?? "") };
  }

  tick(question) {
    const box = h("input", { type: "checkbox", id: question.id, onchange: this.changed });
    const turn = () => closed(box) || ((box.checked = !box.checked), this.changed());
    if (!this.form) this.keys.q ??= [turn, question.text];
    const label = h("label", { className: "tick" }, box, question.text);
    const node = h("div", { className: "field" }, label);
    return { node, get: () => box.checked, set: (given) => (box.checked = Boolean(given)) };
  }

  onImage(question) {
    const marks = new Marks(question, this.words.marks, () => this.changed());
    this.keys.m ??= [() => closed(marks.node) || marks.turn(), question.text];
    return {
      marks,
      node: this.field(question, marks.node),
      get: () => marks.get(),
      set: (given) => marks.set(given),
    };
  }

  field({ text, id, required }, node, more = "") {
    const typed = node.matches("input, textarea");
    const optional = !required && h("em", { text: ` ${this.words.read.optional}` });
    const about = { className: "name", htmlFor: typed ? id : null };
    const name = h(typed ? "label" : "span", about, text, optional);
    return h("div", { className: `field ${more}` }, name, node);
  }

  shown({ question }, given) {
    const [other, wanted] = question.shown_when ?? [];
    return !other || said(given[other]).includes(wanted);
  }

  // The answers to the questions that are shown beside these answers.
  get() {
    const given = {};
    for (const entry of this.entries) {
      const value = this.shown(entry, given) ? entry.get() : "";
      if (!empty(value)) given[entry.question.id] = value;
    }
    return given;
  }

  set(given) {
    for (const { question, set } of this.entries) set(given[question.id]);
    this.refresh();
  }

  refresh() {
    const given = this.entries ? this.get() : {};
    for (const entry of this.entries ?? []) {
      entry.node.hidden = !this.shown(entry, given);
      entry.marks?.seen(!entry.node.hidden);
    }
  }

  // The first question that still needs an answer, or has a number that it does not take.
  missing() {
    const given = this.get();
    const lacks = ({ question: { id, required }, node }) =>
      (required && !(id in given)) || node.querySelector(":invalid");
    return this.entries.find((entry) => lacks(entry) && this.shown(entry, given));
  }
}
