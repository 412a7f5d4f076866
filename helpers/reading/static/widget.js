// The widget: its traits are the page's texts, settings and questions. Readers' answers never
// travel through it. In a notebook it shows the same page in a frame, on a practice record.
export default {
  async render({ model, el }) {
    const base = document.body.dataset.reading;
    if (base === undefined) return practise(model, el);
    const app = await import(new URL(`${base}reading/static/app.js`, location.origin).href);
    return app.mount({ settings: model.get("settings"), words: model.get("words") });
  },
};

const FRAME = "display: block; width: 100%; height: 720px; border: 0; background: #000;";
const BAR = "display: flex; gap: 1em; align-items: center; flex-wrap: wrap; padding: .5em 0;";

// A frame is a separate document, so keys, styles and dialogs belong to the page alone.
function practise(model, el) {
  const { practice: words } = model.get("words");
  const made = (tag, values) => Object.assign(document.createElement(tag), values);
  const bar = made("div", { style: BAR });
  const code = made("code");
  const frame = made("iframe", { title: words.title, style: FRAME, allowFullscreen: true });
  const open = () => (frame.srcdoc = page(model.get("files")));
  const begin = () => model.send({ path: "begin" });
  const full = () => frame.requestFullscreen();
  const span = (textContent) => made("span", { textContent });
  const button = (textContent, onclick) => made("button", { type: "button", textContent, onclick });
  const named = span(`${words.code} `);
  named.append(code);
  frame.practice = { model, leave: open };
  const title = made("strong", { textContent: words.title });
  bar.append(title, span(words.body), named, button(words.again, begin), button(words.full, full));
  el.append(bar, frame);
  const told = ({ data }) => {
    if (!data?.code) return;
    code.textContent = data.code;
    open();
  };
  model.on("msg:custom", told);
  begin();
  return () => model.off("msg:custom", told);
}

// The page's modules as object URLs of this browser, each after the modules that it imports.
function page({ "style.css": style, ...modules }) {
  const addresses = {};
  const address = (name) => {
    const linked = modules[name].replace(
      / from "\.\/([\w.]+)"/g,
      (_, other) => ` from "${address(other)}"`,
    );
    const made = () => URL.createObjectURL(new Blob([linked], { type: "text/javascript" }));
    return (addresses[name] ??= made());
  };
  return `<!DOCTYPE html><html lang="en">
<meta name="color-scheme" content="dark"><style>${style}</style>
<body><div id="reading-wait" role="status">…</div>
<script type="module">import "${address("practice.js")}";</script></body></html>`;
}
