// Elements from plain values; text is always text, never markup.
export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else if (name in node && !["list", "form", "style"].includes(name)) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  const empty = [null, undefined, false];
  node.append(...children.flat(Infinity).filter((child) => !empty.includes(child)));
  return node;
}

export const p = (text, className) => h("p", { text, className });
export const row = (...nodes) => h("div", { className: "row" }, nodes);
export const ending = (...nodes) => h("div", { className: "row end" }, nodes);
export const button = (text, onclick, more) =>
  h("button", { type: "button", text, onclick, ...more });

// A text with its blanks filled: fill("{n} of {of}", { n: 1, of: 2 }).
export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (blank, name) => String(values[name] ?? blank));
}

// A group of toggle buttons. many: several may be on. Returns {node, get(), set(values)}.
export function choices(label, options, { many = false, changed = () => {}, className = "" } = {}) {
  const pressed = (one) => one.getAttribute("aria-pressed") === "true";
  const press = (one, on) => one.setAttribute("aria-pressed", String(on));
  const toggle = ({ currentTarget }) => {
    const on = !pressed(currentTarget);
    if (!many) for (const other of buttons) press(other, false);
    press(currentTarget, on);
    changed();
  };
  const off = { className: "choice", "aria-pressed": "false" };
  const buttons = options.map(([value, text, title]) =>
    button(text, toggle, { ...off, title, "data-value": value }),
  );
  const about = { className: `choices ${className}`, role: "group", "aria-label": label };
  return {
    node: h("div", about, buttons),
    get: () => buttons.filter(pressed).map((one) => one.dataset.value),
    set: (values) => buttons.forEach((one) => press(one, values.includes(one.dataset.value))),
  };
}

// A dialog over the page; resolves with the pressed button's value, or "" if it was closed. Its
// primary button has the focus. A key that is still held down from the page presses nothing.
export function ask(title, body, buttons, className = "") {
  return new Promise((done) => {
    const finish = (value) => {
      dialog.close();
      dialog.remove();
      done(value);
    };
    const pressed = ([value, text, className = ""]) =>
      button(text, () => finish(value), { className, autofocus: className === "primary" });
    const onkeydown = (event) =>
      event.repeat &&
      event.target.matches("button") &&
      event.key !== "Tab" &&
      event.preventDefault();
    const oncancel = (event) => (event.preventDefault(), finish(""));
    const about = { className: `ask ${className}`, "aria-label": title, oncancel, onkeydown };
    const dialog = h(
      "dialog",
      { ...about, "data-lm-suppress-shortcuts": "true" },
      h("h2", { text: title }),
      typeof body === "string" ? p(body) : body,
      ending(buttons.map(pressed)),
    );
    document.body.append(dialog);
    dialog.showModal();
    dialog.scrollTop = 0; // The focus scrolls a long dialog to its end.
  });
}
