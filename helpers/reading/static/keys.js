// The keys of the read, and the list of them.
import { ask, h } from "./dom.js";

export async function help(reading) {
  const { help: words, page } = reading.app.words;
  const keys = Object.entries(reading.panel.fields.keys);
  const own = keys.map(([key, [, text]]) => [key.toUpperCase(), text]);
  const marking = reading.marks.length ? reading.app.words.marks.keys : [];
  const line = ([key, what]) =>
    h("tr", {}, h("th", { scope: "row", text: key }), h("td", { text: what }));
  const rows = [...own, ...marking, ...words.rows].map(line);
  const table = h("table", { className: "keys" }, h("tbody", {}, rows));
  await ask(words.title, table, [["", page.close, "primary"]]);
}

// Do what a pressed key asks for.
export function press(reading, event) {
  const { ctrlKey, metaKey, altKey, isComposing } = event; // an input method takes its own keys
  if (document.querySelector("dialog[open]") || ctrlKey || metaKey || altKey || isComposing) return;
  const writing = event.target.matches("textarea, input");
  if (event.key === "Escape" && writing) return event.target.blur();
  if (event.key === "Enter" && !event.shiftKey && (writing || !event.target.matches("button"))) {
    event.preventDefault();
    return event.repeat ? undefined : reading.submit();
  }
  if (writing) return undefined;
  if (event.target === reading.canvas && reading.marks.some((marks) => marks.key(event)))
    return event.preventDefault();
  const act = shortcut(reading, event.key.length === 1 ? event.key.toLowerCase() : event.key);
  if (!act || (event.repeat && !event.key.startsWith("Arrow"))) return undefined;
  event.preventDefault();
  return act();
}

function shortcut(reading, key) {
  const { viewer, panel } = reading;
  if (panel.fields.keys[key]) return panel.fields.keys[key][0];
  return {
    a: () => viewer.preset("auto"),
    s: () => viewer.preset("soft"),
    h: () => viewer.preset("hard"),
    i: () => viewer.invert(),
    0: () => viewer.reset(),
    z: () => viewer.actualSize(),
    x: () => reading.fullScreen(),
    p: () => reading.pause(),
    "?": () => help(reading),
    "+": () => viewer.zoomBy(1.25),
    "-": () => viewer.zoomBy(0.8),
    ArrowLeft: () => viewer.panBy(40, 0),
    ArrowRight: () => viewer.panBy(-40, 0),
    ArrowUp: () => viewer.panBy(0, 40),
    ArrowDown: () => viewer.panBy(0, -40),
  }[key];
}
