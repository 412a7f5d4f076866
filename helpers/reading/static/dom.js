// Elements from plain values; text is always text, never markup.
export function h(tag, told = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(told)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else if (name in node && !["list", "form", "style"].includes(name)) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// A group of toggle buttons. many: several may be on. Returns {node, get(), set(values)}.
export function choices(label, options, { many = false, changed = () => {}, className = "" } = {}) {
  const buttons = options.map(([value, text, title]) =>
    h("button", {
      type: "button",
      className: "choice",
      text,
      title,
      "data-value": value,
      "aria-pressed": "false",
      onclick: (event) => {
        const was = event.currentTarget.getAttribute("aria-pressed") === "true";
        if (!many) for (const other of buttons) other.setAttribute("aria-pressed", "false");
        event.currentTarget.setAttribute("aria-pressed", String(!was));
        changed();
      },
    }),
  );
  return {
    node: h("div", { className: `choices ${className}`, role: "group", "aria-label": label }, buttons),
    get: () => buttons.filter((button) => button.getAttribute("aria-pressed") === "true").map((button) => button.dataset.value),
    set: (values) => buttons.forEach((button) => button.setAttribute("aria-pressed", String(values.includes(button.dataset.value)))),
  };
}

// A dialog over the page; resolves with the pressed button's value.
export function ask(title, body, buttons) {
  return new Promise((done) => {
    const dialog = h(
      "dialog",
      { className: "ask", "aria-label": title },
      h("h2", { text: title }),
      body,
      h(
        "div",
        { className: "row end" },
        buttons.map(([value, text, kind]) =>
          h("button", { type: "button", className: kind ?? "", text, onclick: () => finish(value) }),
        ),
      ),
    );
    const finish = (value) => {
      dialog.close();
      dialog.remove();
      done(value);
    };
    dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      finish("");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
