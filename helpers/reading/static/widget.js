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

// A frame is a document of its own: its keys, styles and dialogs are the page's alone.
function practise(model, el) {
  const { practice: words } = model.get("words");
  const made = (tag, values) => Object.assign(document.createElement(tag), values);
  const bar = made("div", { style: BAR });
  const code = made("code");
  const frame = made("iframe", { title: words.title, style: FRAME, allowFullscreen: true });
  const open = () => (frame.srcdoc = page(model.get("files")));
  const begin = () => model.send({ path: "begin" });
  const full = () => frame.requestFullscreen();
  frame.practice = { model, leave: open };
  bar.append(
    made("strong", { textContent: words.title }),
    made("span", { textContent: words.body }),
    made("span", { textContent: `${words.code} ` }),
    made("button", { type: "button", textContent: words.again, onclick: begin }),
    made("button", { type: "button", textContent: words.full, onclick: full }),
  );
  bar.children[2].append(code);
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

// The page with its modules as addresses of this browser, each after those that it imports.
function page({ "style.css": style, ...modules }) {
  const addresses = {};
  const address = (name) => {
    const linked = modules[name].replace(/ from "\.\/([\w.]+)"/g, (_, other) => ` from "${address(other)}"`);
    const made = () => URL.createObjectURL(new Blob([linked], { type: "text/javascript" }));
    return (addresses[name] ??= made());
  };
  return `<!DOCTYPE html><html lang="en"><meta name="color-scheme" content="dark"><style>${style}</style>
<body><div id="reading-wait" role="status">…</div>
<script type="module">import "${address("practice.js")}";</script></body></html>`;
}
