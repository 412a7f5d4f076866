// The answer panel: the questions of a block beside its images; drafts survive a reload.
import { button, fill, h } from "./dom.js";
import { Fields } from "./fields.js";

export class Panel {
  constructor(app, questions, submit) {
    const words = app.words.read;
    this.app = app;
    this.fields = new Fields(app, questions, () => (this.keepDraft(), this.say("")));
    this.reason = h("textarea", { rows: 2, maxLength: 500, id: "reason" });
    this.problem = h("p", { className: "problem", role: "alert" });
    this.go = button(words.save, submit, { className: "primary save" });
    const label = h("label", { className: "name", htmlFor: "reason", text: words.reason });
    this.reasonField = h("div", { className: "field" }, label, this.reason);
    this.node = h("div", { className: "answer" }, this.reasonField, this.fields.nodes);
  }

  // Show the panel for one image: a draft, an earlier answer, or empty.
  open(id, earlier, changing) {
    this.id = id;
    const draft = changing ? earlier : this.app.kept.get("-draft", id);
    this.fields.set(draft ?? {});
    this.reason.value = "";
    this.reasonField.hidden = !changing;
    this.changing = changing;
    this.go.textContent = changing ? this.app.words.read.change : this.app.words.read.save;
    this.say("");
    this.node.scrollTop = 0;
  }

  keepDraft() {
    if (!this.changing && this.id) this.app.kept.put("-draft", this.id, this.fields.get());
  }

  get() {
    const given = this.fields.get();
    return this.changing ? { ...given, reason: this.reason.value.trim() } : given;
  }

  // Whether an answer is still needed. If so, the page says which and brings its field into view.
  lacks() {
    const { needed, reason } = this.app.words.read;
    const missing = this.fields.missing();
    const without = this.changing && !this.reason.value.trim();
    if (!missing && !without) return false;
    this.say(fill(needed, { question: missing ? missing.question.text : reason }));
    (missing ? missing.node : this.reasonField).scrollIntoView({ block: "nearest" });
    return true;
  }

  say(text) {
    this.problem.textContent = text;
  }
}
