// Sign in with the personal code: from the link's fragment, which never reaches a server's log, or typed.
import { h } from "./dom.js";

const told = JSON.parse(document.getElementById("told").textContent);
const file = /^[a-z]{2}$/.test(told.language) ? told.language : "en";
const texts = (await import(`./texts.${file}.js`).catch(() => import("./texts.en.js"))).default;
const words = texts.signin;
document.documentElement.lang = texts.language;
document.title = told.title;

const code = h("input", { type: "text", className: "code", name: "code", autocomplete: "off", spellcheck: false, autocapitalize: "characters" });
const problem = h("p", { className: "problem", role: "alert" });
const go = h("button", { type: "submit", className: "primary", text: words.enter });
const form = h("form", { onsubmit: (event) => (event.preventDefault(), send(code.value)) }, h("p", { text: words.lead }), h("label", {}, words.code, code), problem, h("div", { className: "row end" }, go));
document.body.append(h("div", { className: "reading" }, h("div", { className: "scroll" }, h("main", { className: "sheet narrow" }, h("p", { className: "study", text: told.title }), h("h1", { text: words.enter }), form))));

const given = location.hash.slice(1).replace(/%20/g, " ");
history.replaceState(null, "", location.pathname);
if (given) {
  code.value = given;
  send(given);
} else code.focus();

async function send(value) {
  go.disabled = true;
  problem.textContent = "";
  try {
    const answer = await fetch("login", { method: "POST", headers: { "X-Reading": "1" }, body: JSON.stringify({ code: value }) });
    if (answer.ok) return location.replace("./");
    problem.textContent = answer.status === 429 ? words.wait(answer.headers.get("Retry-After")) : answer.status === 403 ? words.wrong : words.trouble;
  } catch {
    problem.textContent = words.trouble;
  }
  go.disabled = false;
  return code.focus();
}
