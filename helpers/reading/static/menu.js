// The footer of every screen: whether all is saved, withdraw, sign out.
import { pause } from "./api.js";
import { ask, button, fill, h, p, row } from "./dom.js";

export function savedState(app, node, count, trouble, always = true) {
  const words = app.words.saved;
  const state = !count ? "saved" : trouble ? "trouble" : "saving";
  const problem = trouble === "storage" ? words.storage : fill(words.waiting, { n: count });
  const said = { saved: always ? words.saved : "", saving: words.saving, trouble: problem };
  node.dataset.state = state;
  node.textContent = said[state];
}

export function menu(app) {
  const { withdraw: words, page } = app.words;
  const quiet = { className: "quiet" };
  const reading = !["withdrawn", "erased", "consent"].includes(app.state.phase);
  const leave = reading && button(words.open, () => withdraw(app), quiet);
  return row(
    leave,
    button(page.sign_out, () => signOut(app), quiet),
  );
}

// Sign out when everything is saved. If that is not possible now, say so and sign out later.
export async function signOut(app) {
  const { title, body, stay } = app.words.leaving;
  for (let staying = false, said = false; !staying;) {
    const saved = await app.outbox.empty(said ? 500 : 5000);
    const status = saved || app.outbox.stopped ? (await app.server.signOut()).status : 0;
    if (status === 200) {
      app.screen?.leave?.(); // else leaving the page would store its time on the device again
      if (saved) app.kept.clear();
      return location.assign(app.server.login);
    }
    app.kept.put("-leaving", "", true); // the page may be closed before it can
    app.root.classList.add("covered");
    if (!said) ask(title, body, [["stay", stay]]).then(() => (staying = true));
    said = true;
    await pause(1000);
  }
  app.kept.drop("-leaving", "");
  return app.root.classList.remove("covered");
}

export async function withdraw(app) {
  const words = app.words.withdraw;
  const reason = h("textarea", { rows: 2, maxLength: 500, "aria-label": words.reason });
  const body = h("div", {}, p(words.body), h("label", {}, words.reason, reason));
  const buttons = [
    ["", app.words.page.cancel],
    ["yes", words.yes, "danger"],
  ];
  if ((await ask(words.title, body, buttons)) === "yes")
    app.outbox.put("withdrawn", "", { reason: reason.value });
}
