// The image that is read, or the two images of a pair. Decides which of them tools and keys change,
// and whether both move together.
import { button, h } from "./dom.js";
import { Viewer } from "./viewer.js";

export class Films {
  constructor({ words }, block, panel, changed) {
    Object.assign(this, { words, block, changed });
    this.films = this.sides(panel).map((name, n) => this.film(name, n));
    this.canvas = this.films[0].canvas; // of a pair the left one
    this.loading = h("p", { className: "loading", role: "status", hidden: true });
    const { link: text, link_both: title } = words.tools;
    const tool = { className: "tool", title, "aria-label": title, "data-tool": "link" };
    this.linking = block.pairs && button(text, () => this.link(!this.viewer.linked), tool);
    const nodes = this.films.map(({ node }) => node);
    this.node = h("div", { className: block.pairs ? "films pair" : "films" }, nodes, this.loading);
  }

  // Called once the canvases are on the page.
  begin() {
    const changed = (viewer) => viewer === this.viewer && this.changed(viewer);
    this.viewers = this.films.map(({ canvas }) => new Viewer(canvas, changed));
    this.activate(this.viewers[0]);
    if (this.block.pairs) this.link(this.block.linked);
  }

  // The names of the images of a pair, as in the question; "" for a single image.
  sides(panel) {
    if (!this.block.pairs) return [""];
    const entry = panel.fields.entries.find(({ question }) => question.id === "which");
    const buttons = entry.node.querySelectorAll(".choice");
    buttons.forEach((button, n) => button.append(this.stacked(n)));
    return entry.question.options.map(([, text]) => text);
  }

  // On a phone the left image is the upper one.
  stacked(n) {
    const { above, below } = this.words.read;
    return h("span", { className: "stacked", text: ` (${[above, below][n]})` });
  }

  film(name, n) {
    const about = { className: "picture", role: "img", tabIndex: 0, "aria-label": name };
    const canvas = h("canvas", about);
    const touched = () => this.activate(this.viewers[n]);
    for (const event of ["pointerdown", "wheel", "focus"]) canvas.addEventListener(event, touched);
    const named = { className: "name", "aria-hidden": true };
    const caption = name && h("span", named, name, this.stacked(n));
    return { canvas, node: h("div", { className: "film" }, canvas, caption) };
  }

  // The image that tools and keys change: the one that was touched last.
  activate(viewer) {
    this.viewer = viewer;
    for (const { node, canvas } of this.films)
      node.classList.toggle("active", canvas === viewer.canvas);
    this.changed(viewer);
  }

  // Let window and zoom of a pair move together, or each alone.
  link(on) {
    const [left, right] = this.viewers;
    [left.linked, right.linked] = on ? [right, left] : [];
    this.linking.setAttribute("aria-pressed", String(on));
    this.films.forEach(({ node }) => node.classList.toggle("alone", !on));
    if (on && this.viewer.picture) this.viewer.ask();
  }

  show(pictures) {
    this.viewers.forEach((viewer, n) => viewer.show(pictures[n]));
  }

  // A sentence in place of the image; "" removes it.
  cover(sentence) {
    this.loading.hidden = !sentence;
    this.loading.textContent = sentence;
    if (!sentence) return;
    for (const viewer of this.viewers) viewer.clear();
    delete this.canvas.dataset.shown;
  }

  // The view of the image, or of each image of a pair.
  view() {
    const [left, right] = this.viewers;
    if (!right) return left.view();
    return { ...left.view(), beside: right.view(), linked: Boolean(left.linked) };
  }
}
