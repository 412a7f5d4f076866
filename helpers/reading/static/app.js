// The page: where the reader is decides which screen is shown. The server knows where; the page asks and follows.
import { call, picture } from "./api.js";
import { ask, h } from "./dom.js";
import { Outbox } from "./outbox.js";
import { Reading } from "./reading.js";
import * as screens from "./screens.js";
import { prepare } from "./viewer.js";

// What every screen gets: what was told, where the reader is, and the two things that a screen may ask of the page.
export const app = { told: null, texts: null, state: null, outbox: null, root: null, screen: null, pictures: new Map(), show, fetchOne };
let beginning = null;

// Fetch what the first screen needs: the state, the words and the first pictures. Done once a page.
export function begin() {
  beginning ??= (async () => {
    let answer = await call("reading/state");
    for (let wait = 250; answer.status !== 200; wait = Math.min(wait * 2, 3000)) {
      if (answer.status === 401) return signIn();
      await new Promise((done) => setTimeout(done, wait));
      answer = await call("reading/state");
    }
    app.state = answer.data;
    app.told = answer.data.page;
    app.texts = await words(app.told.language);
    const wait = document.getElementById("reading-wait");
    if (wait) wait.textContent = app.texts.page.opening;
    document.documentElement.lang = app.texts.language;
    document.title = app.told.title;
    if (app.state.phase === "read" || app.state.phase === "display") fetchAhead(app.state);
    return undefined;
  })();
  return beginning;
}

async function words(language) {
  const file = /^[a-z]{2}$/.test(language) ? language : "en";
  try {
    return (await import(`./texts.${file}.js`)).default;
  } catch {
    return (await import("./texts.en.js")).default;
  }
}

function signIn() {
  location.replace(`${document.body.dataset.reading}login${location.hash}`);
  return new Promise(() => {});
}

let mounted = null;

// Put the page on the screen, once.
export function mount() {
  mounted ??= put();
  return mounted;
}

async function put() {
  await begin();
  const { state, told } = app;
  app.root = h("div", { className: "reading", id: "reading" });
  app.outbox = new Outbox(told.study, state.reader, {
    saved: (message, next) => follow(next, message),
    refused: (message) => refused(message),
    signedOut: () => signedOut(),
    changed: (waiting, trouble) => app.screen?.waiting?.(waiting, trouble),
  });
  document.getElementById("reading-wait")?.remove();
  document.body.append(app.root);
  app.outbox.pump();
  if (app.outbox.waiting.length) await app.outbox.empty(3000); // what an earlier page could not save comes first
  show();
  setInterval(() => app.outbox.waiting.length || call("health"), 20000);
}

// The server said where the reader is now.
function follow(state, message) {
  const before = app.state?.phase;
  app.state = { ...app.state, ...state };
  fetchAhead(app.state);
  if (!app.screen) return; // an earlier page's messages are still being sent: the first screen comes after them
  if (app.screen instanceof Reading && app.state.phase === "read") app.screen.follow(message);
  else if (before !== app.state.phase || !(app.screen instanceof Reading)) {
    if (!app.outbox.waiting.length || app.state.phase !== "read") show();
  }
}

async function refused() {
  const answer = await call("reading/state");
  if (answer.status !== 200) return;
  app.state = answer.data;
  show();
  app.screen?.notice?.(app.texts.read.refused);
}

async function signedOut() {
  await ask(app.texts.page.signIn, h("p", { text: app.texts.page.signedOut }), [["go", app.texts.page.signIn, "primary"]]);
  location.assign(`${document.body.dataset.reading}login`);
}

// Show the screen of the present phase.
function show() {
  const make = { consent: screens.consent, registration: screens.registration, display: screens.instructions, summary: screens.summary, locked: screens.locked, withdrawn: screens.withdrawn };
  const { phase } = app.state;
  app.screen?.leave?.();
  app.root.replaceChildren();
  app.screen = phase === "read" ? new Reading(app) : make[phase](app);
  app.screen.waiting?.(app.outbox.waiting.length, app.outbox.trouble);
}

// Every picture that is open or next, as a promise of a prepared picture; those no longer needed are let go.
function fetchAhead(state) {
  const wanted = [state.current, ...(state.next ?? []), state.last].filter((id) => id && state.pictures[id]);
  for (const id of wanted) fetchOne(id);
  for (const id of app.pictures.keys()) if (!wanted.includes(id) && !app.screen?.needs?.(id)) app.pictures.delete(id);
}

function fetchOne(id) {
  if (!app.pictures.has(id)) {
    const coming = picture(app.told.study, app.state.reader, id).then((raw) => raw && prepare(raw, app.told.first_window, app.told.bits));
    app.pictures.set(id, coming);
    coming.then((ready) => {
      if (ready) coming.ready = ready;
      else app.pictures.delete(id);
    });
  }
  return app.pictures.get(id);
}
