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

// A text with its blanks filled: fill("{n} of {of}", { n: 1, of: 2 }).
export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (blank, name) => String(values[name] ?? blank));
}

// A group of toggle buttons. many: several may be on. Returns {node, get(), set(values)}.
export function choices(label, options, { many = false, changed = () => {}, className = "" } = {}) {
  const pressed = (button) => button.getAttribute("aria-pressed") === "true";
  const press = (button, on) => button.setAttribute("aria-pressed", String(on));
  const toggle = ({ currentTarget }) => {
    const on = !pressed(currentTarget);
    if (!many) for (const other of buttons) press(other, false);
    press(currentTarget, on);
    changed();
  };
  const buttons = options.map(([value, text, title]) =>
    h("button", { type: "button", className: "choice", text, title, "data-value": value, "aria-pressed": "false", onclick: toggle }),
  );
  return {
    node: h("div", { className: `choices ${className}`, role: "group", "aria-label": label }, buttons),
    get: () => buttons.filter(pressed).map((button) => button.dataset.value),
    set: (values) => buttons.forEach((button) => press(button, values.includes(button.dataset.value))),
  };
}

// A dialog over the page; resolves with the pressed button's value, "" when it was left.
export function ask(title, body, buttons, className = "") {
  return new Promise((done) => {
    const finish = (value) => {
      dialog.close();
      dialog.remove();
      done(value);
    };
    const pressed = ([value, text, kind = ""]) =>
      h("button", { type: "button", className: kind, text, onclick: () => finish(value) });
    const leave = (event) => (event.preventDefault(), finish(""));
    const dialog = h(
      "dialog",
      { className: `ask ${className}`, "aria-label": title, oncancel: leave, "data-lm-suppress-shortcuts": "true" },
      h("h2", { text: title }),
      typeof body === "string" ? h("p", { text: body }) : body,
      h("div", { className: "row end" }, buttons.map(pressed)),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
