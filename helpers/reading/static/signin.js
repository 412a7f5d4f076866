// Sign in with the personal code: from the link's fragment, which never reaches a server's log, or
// typed.
import { ending, fill, h, p } from "./dom.js";

const words = JSON.parse(document.getElementById("words").textContent);

const typed = { type: "text", className: "code", name: "code" };
const unaided = { autocomplete: "off", spellcheck: false, autocapitalize: "characters" };
const code = h("input", { ...typed, ...unaided });
const problem = h("p", { className: "problem", role: "alert" });
const go = h("button", { type: "submit", className: "primary", text: words.enter });
const onsubmit = (event) => (event.preventDefault(), send(code.value));
const label = h("label", {}, words.code, code);
const form = h("form", { onsubmit }, p(words.lead), label, problem, ending(go));
const heading = h("h1", { text: words.enter });
const sheet = h("main", { className: "sheet narrow" }, p(document.title, "study"), heading, form);
document.body.append(h("div", { className: "reading" }, h("div", { className: "scroll" }, sheet)));

// Sign in with the code of a link that is opened here or pasted into the address bar.
addEventListener("hashchange", fromLink);
fromLink();

function fromLink() {
  const linked = location.hash.slice(1).replace(/%20/g, " ");
  history.replaceState(null, "", location.pathname);
  if (!linked) return code.focus();
  code.value = linked;
  return send(linked);
}

async function send(value) {
  go.disabled = true;
  problem.textContent = "";
  try {
    const request = { method: "POST", headers: { "X-Reading": "1" } };
    const answer = await fetch("login", { ...request, body: JSON.stringify({ code: value }) });
    if (answer.ok) {
      // An earlier wish to sign out from this device, which had to wait, is over.
      for (const name of Object.keys(localStorage))
        if (name.startsWith("reading-leaving/")) localStorage.removeItem(name);
      return location.replace("./");
    }
    const wait = fill(words.wait, { seconds: answer.headers.get("Retry-After") });
    problem.textContent = { 429: wait, 403: words.wrong }[answer.status] ?? words.trouble;
  } catch {
    problem.textContent = words.trouble;
  }
  go.disabled = false;
  return code.focus();
}
