// The answer panel: label, confidence, description, findings, side, cues; drafts survive a reload.
import { choices, h } from "./dom.js";

export class Panel {
  constructor(app, submit) {
    const { settings } = app;
    const words = app.words.read;
    this.app = app;
    this.changed = () => (this.keepDraft(), this.say(""));
    const pick = (label, options, more) => choices(label, options, { changed: this.changed, ...more });
    const small = { many: true, className: "small" };
    const steps = words.steps[parseInt(settings.confidence, 10)]?.map((text, n) => [String(n + 1), text]);
    const ids = (names, given) => names.map((id) => [id, given[id] ?? id]);
    this.label = pick(words.label, [["real", words.real, "R"], ["fake", words.fake, "F"], ["uncertain", words.uncertain, "U"]], { className: "labels" });
    this.poor = h("input", { type: "checkbox", id: "poor_quality", onchange: this.changed });
    this.confidence = steps && pick(words.confidence, steps, { className: "steps-of" });
    this.description = h("textarea", { rows: 2, maxLength: 2000, id: "description", oninput: this.changed });
    this.findings = pick(words.findings, ids(settings.findings_offered, app.words.findings), small);
    this.side = pick(words.side, ids(["left", "right", "bilateral"], words), { className: "small" });
    this.cues = settings.cues_asked && pick(words.cues, ids(settings.cues, words.cue), small);
    this.reason = h("textarea", { rows: 2, maxLength: 500, id: "reason" });
    this.problem = h("p", { className: "problem", role: "alert" });
    this.go = h("button", { type: "button", className: "primary save", text: words.save, onclick: submit });
    const field = (title, node, optional, forId, more = "") => h("div", { className: `field ${more}` }, h(forId ? "label" : "span", { className: "name", htmlFor: forId }, title, optional && h("em", { text: ` ${words.optional}` })), node);
    this.reasonField = field(words.reason, this.reason, false, "reason");
    this.node = h("div", { className: "answer" },
      this.reasonField,
      field(words.label, this.label.node),
      h("label", { className: "poor" }, this.poor, words.poor_quality),
      this.confidence && field(words.confidence, this.confidence.node),
      field(words.description, this.description, !settings.description_required, "description"),
      field(words.findings, this.findings.node, !settings.findings_required),
      field(words.side, this.side.node, true, "", "inline"),
      this.cues && field(words.cues, this.cues.node, !settings.cues_required),
    );
  }

  // Show the panel for one image: a draft, an earlier answer, or empty.
  open(id, earlier, changing) {
    this.id = id;
    const draft = changing ? earlier : this.app.kept.get("-draft", id);
    const given = draft ?? {};
    this.label.set(given.label ? [given.label] : []);
    this.poor.checked = Boolean(given.poor_quality);
    this.confidence?.set(given.confidence ? [String(given.confidence)] : []);
    this.description.value = given.description ?? "";
    this.findings.set(given.findings ?? []);
    this.side.set(given.side ? [given.side] : []);
    if (this.cues) this.cues.set(given.cues ?? []);
    this.reason.value = "";
    this.reasonField.hidden = !changing;
    this.changing = changing;
    this.go.textContent = changing ? this.app.words.read.change : this.app.words.read.save;
    this.say("");
    this.node.scrollTop = 0;
  }

  keepDraft() {
    if (!this.changing && this.id) this.app.kept.put("-draft", this.id, this.get());
  }

  get() {
    const given = { label: this.label.get()[0] ?? "", description: this.description.value.trim(), findings: this.findings.get(), side: this.side.get()[0] ?? "", poor_quality: this.poor.checked };
    if (this.confidence) given.confidence = Number(this.confidence.get()[0] ?? 0);
    if (this.cues) given.cues = this.cues.get();
    if (this.changing) given.reason = this.reason.value.trim();
    return given;
  }

  // The first field that is still needed; "" when the answer is complete.
  missing() {
    const { settings } = this.app;
    const given = this.get();
    if (!given.label) return "label";
    if (this.confidence && !given.confidence) return "confidence";
    if (settings.description_required && !given.description) return "description";
    if (settings.findings_required && !given.findings.length) return "findings";
    if (settings.cues_asked && settings.cues_required && !given.cues.length) return "cues";
    return this.changing && !given.reason ? "reason" : "";
  }

  // Say what is missing and bring that field into view.
  need(name) {
    this.say(this.app.words.read.needed[name]);
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
    this.confidence.set([String(step)]);
    this.changed();
  }

  tickPoor() {
    this.poor.checked = !this.poor.checked;
    this.changed();
  }
}
