// The answer panel: label, confidence, description, findings, side, cues; drafts survive a reload.
import { choices, h } from "./dom.js";

export class Panel {
  constructor(app, submit) {
    const { texts, told } = app;
    const words = texts.read;
    this.app = app;
    this.changed = () => (this.keepDraft(), this.say(""));
    const pick = (label, options, more) => choices(label, options, { changed: this.changed, ...more });
    this.label = pick(words.label, [["real", words.real, "R"], ["fake", words.fake, "F"], ["uncertain", words.uncertain, "U"]], { className: "labels" });
    const steps = told.confidence === "none" ? null : words.steps[parseInt(told.confidence, 10)];
    this.confidence = steps && pick(words.confidence, steps.map((text, n) => [String(n + 1), text]), { className: "steps-of" });
    this.description = h("textarea", { rows: 2, maxLength: 2000, id: "description", oninput: this.changed });
    this.findings = pick(words.findings, told.findings_offered.map((id) => [id, texts.findings[id] ?? id]), { many: true, className: "small" });
    this.side = pick(words.side, ["left", "right", "bilateral"].map((id) => [id, words[id]]), { className: "small" });
    this.cues = told.cues_asked && pick(words.cues, told.cues.map((id) => [id, words.cue[id] ?? id]), { many: true, className: "small" });
    this.reason = h("textarea", { rows: 2, maxLength: 500, id: "reason" });
    this.problem = h("p", { className: "problem", role: "alert" });
    this.go = h("button", { type: "button", className: "primary save", text: words.save, onclick: submit });
    this.reasonField = h("div", { className: "field", hidden: true }, h("label", { htmlFor: "reason", text: words.reason }), this.reason);
    const field = (title, node, optional, forId, more = "") => h("div", { className: `field ${more}` }, h(forId ? "label" : "span", { className: "name", htmlFor: forId }, title, optional && h("em", { text: ` ${words.optional}` })), node);
    this.node = h(
      "div",
      { className: "answer" },
      field(words.label, this.label.node),
      this.confidence && field(words.confidence, this.confidence.node),
      field(words.description, this.description, !told.description_required, "description"),
      field(words.findings, this.findings.node, !told.findings_required),
      field(words.side, this.side.node, true, "", "inline"),
      this.cues && field(words.cues, this.cues.node, !told.cues_required),
      this.reasonField,
    );
  }

  // Show the panel for one picture: a draft, an earlier answer, or empty.
  open(id, earlier, changing) {
    this.id = id;
    const draft = changing ? earlier : JSON.parse(localStorage.getItem(this.draftKey(id)) ?? "null");
    const given = draft ?? {};
    this.label.set(given.label ? [given.label] : []);
    this.confidence?.set(given.confidence ? [String(given.confidence)] : []);
    this.description.value = given.description ?? "";
    this.findings.set(given.findings ?? []);
    this.side.set(given.side ? [given.side] : []);
    if (this.cues) this.cues.set(given.cues ?? []);
    this.reason.value = "";
    this.reasonField.hidden = !changing;
    this.changing = changing;
    this.go.textContent = changing ? this.app.texts.read.change : this.app.texts.read.save;
    this.say("");
    this.node.scrollTop = 0;
  }

  draftKey(id) {
    return `reading-draft/${this.app.told.study}/${this.app.state.reader}/${id}`;
  }

  keepDraft() {
    if (this.changing || !this.id) return;
    try {
      localStorage.setItem(this.draftKey(this.id), JSON.stringify(this.get()));
    } catch {
      // a draft is a comfort, not a promise
    }
  }

  dropDraft(id) {
    localStorage.removeItem(this.draftKey(id));
  }

  get() {
    const given = { label: this.label.get()[0] ?? "", description: this.description.value.trim(), findings: this.findings.get(), side: this.side.get()[0] ?? "" };
    if (this.confidence) given.confidence = Number(this.confidence.get()[0] ?? 0);
    if (this.cues) given.cues = this.cues.get();
    if (this.changing) given.reason = this.reason.value.trim();
    return given;
  }

  // The first field that is still needed; "" when the answer is complete.
  missing() {
    const { told } = this.app;
    const given = this.get();
    if (!given.label) return "label";
    if (this.confidence && !given.confidence) return "confidence";
    if (told.description_required && !given.description) return "description";
    if (told.findings_required && !given.findings.length) return "findings";
    if (told.cues_asked && told.cues_required && !given.cues.length) return "cues";
    return this.changing && !given.reason ? "reason" : "";
  }

  // Say what is missing and bring that field into view.
  need(name) {
    this.say(this.app.texts.read.needed[name]);
    const field = name === "description" || name === "reason" ? this[name] : this[name].node;
    field.closest(".field").scrollIntoView({ block: "nearest" });
  }

  say(text) {
    this.problem.textContent = text;
  }

  pickLabel(value) {
    this.label.set([value]);
    this.changed();
  }

  pickStep(step) {
    if (!this.confidence) return;
    this.confidence.set([String(step)]);
    this.changed();
  }
}
