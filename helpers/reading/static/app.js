// The page shows the screen for the reader's position. The server knows the position; the page
// asks for it.
import { pause } from "./api.js";
import { ask, h } from "./dom.js";
import { Kept } from "./kept.js";
import { signOut } from "./menu.js";
import { Outbox } from "./outbox.js";
import { Reading } from "./reading.js";
import * as screens from "./screens.js";
import { prepare } from "./viewer.js";

const LOOK_AGAIN = 20000; // milliseconds between two checks that the read is still open
const ENDS = ["summary", "locked", "withdrawn", "erased"]; // phases after the last block

// Every screen gets this object: functions of the page and, once they exist, server, settings,
// words, state (the reader's position), root, kept, outbox, screen and shown (its place).
export const app = {
  images: new Map(),
  show,
  title,
  fetchImage,
  lookAgain,
  openAnswer,
  blockOf,
  both,
};
let beginning = null;
let mounted = null;

// Fetch what the first screen needs: the state and the first images. Done once per page.
export function begin(server) {
  beginning ??= (async () => {
    app.server = server;
    const [state, page] = await Promise.all([
      come(() => server.state()),
      come(() => server.call("reading/settings")),
    ]);
    const { words, ...settings } = page;
    Object.assign(app, { state, words, settings });
    waitingSays(words.page.opening);
    if (["read", "display"].includes(app.state.phase)) fetchAhead();
  })();
  return beginning;
}

// The answer to a call, repeated until it arrives. A signed-out reader gets the sign-in page.
async function come(call) {
  for (let wait = 250; ; wait = Math.min(wait * 2, 3000)) {
    const { status, data } = await call();
    if (status === 200) return data;
    if (status === 401) return signIn();
    waitingSays(document.getElementById("reading-wait")?.dataset.trouble);
    await pause(wait);
  }
}

// Say why there is no screen yet. The practice page has no such sentence.
function waitingSays(text) {
  const waiting = document.getElementById("reading-wait");
  if (waiting && text) waiting.textContent = text;
}

function signIn() {
  location.replace(`${app.server.login}${location.hash}`);
  return new Promise(() => {});
}

// Put the page on the screen, once. page: the widget's {settings, words}. Without a kernel, the
// page uses the settings and words that came with the state.
export function mount(page) {
  mounted ??= put(page);
  return mounted;
}

async function put(page) {
  await begin();
  Object.assign(app, page?.settings?.study ? page : {});
  const { settings, words, state } = app;
  document.documentElement.lang = words.language;
  const about = { className: "reading", id: "reading", "data-lm-suppress-shortcuts": "true" };
  app.root = h("div", about);
  app.kept ??= new Kept(settings.study, state.reader);
  app.outbox = new Outbox(app.server, app.kept, {
    saved: follow,
    refused: () => lookAgain(words.read.refused),
    signedOut,
    changed: (count, trouble) => app.screen?.waiting?.(count, trouble),
  });
  document.getElementById("reading-wait")?.remove();
  document.body.append(app.root);
  app.outbox.pump();
  if (app.kept.ids("-leaving").length) return signOut(app);
  // First save what an earlier page could not save
  if (app.outbox.waiting.length) await app.outbox.empty(3000);
  show();
  setInterval(() => app.outbox.waiting.length || lookAgain(), LOOK_AGAIN);
}

// The server has sent the reader's new position.
function follow(state) {
  app.state = { ...app.state, ...state };
  fetchAhead();
  // Messages of an earlier page are still being sent: wait before showing the first screen
  if (!app.screen) return;
  const reading = app.state.phase === "read";
  if (app.shown !== place(app.state)) !(reading && app.outbox.waiting.length) && show();
  else if (reading) app.screen.follow();
}

// What decides on the screen. As long as it stays, a form keeps what is written in it.
const place = ({ phase, block }) => `${phase} ${block.number}`;

// Ask for the reader's position. notice: the reason; without one, the screen changes only with the
// position.
async function lookAgain(notice = "") {
  const answer = await app.server.state();
  const another = answer.status === 200 && answer.data.reader !== app.server.reader;
  if (answer.status === 401 || another) return app.outbox.stopped || signedOut();
  const same = answer.status === 200 && app.shown === place(answer.data);
  if (answer.status !== 200 || (!notice && same)) return undefined;
  app.state = answer.data;
  show();
  if (same) app.screen.notice?.(notice);
}

async function signedOut() {
  app.outbox.stopped = true;
  const { sign_in, signed_out } = app.words.page;
  await ask(sign_in, signed_out, [["go", sign_in, "primary"]]);
  location.assign(app.server.login);
}

// The title of the block, before and after the blocks that of the study.
function title() {
  const { phase, block } = app.state;
  return ENDS.includes(phase) ? app.settings.title : (block.title ?? app.settings.title);
}

// Show the screen of the present phase.
function show() {
  const { phase } = app.state;
  app.screen?.leave?.();
  document.title = title();
  app.root.replaceChildren();
  app.shown = place(app.state);
  app.screen = phase === "read" ? new Reading(app) : screens[phase](app);
  app.screen.waiting?.(app.outbox.waiting.length, app.outbox.trouble);
}

// The block that shows an image: the present one, or an earlier one whose answers may still be
// changed.
function blockOf(id) {
  const { pictures, block, earlier } = app.state;
  return [block, ...earlier].find(({ number }) => number === pictures[id]?.block) ?? block;
}

// An image and, in a pair, the one beside it.
function both(id) {
  return [id, app.state.pictures[id]?.beside].filter(Boolean);
}

// Open an answer again, from the summary.
function openAnswer(id) {
  app.root.replaceChildren();
  app.screen = new Reading(app, id);
}

// Every image that is open or next, as a promise of a prepared image. The one that the reader waits
// for is not slowed down by the others. Images that are no longer needed are dropped.
async function fetchAhead() {
  const known = (ids) => ids.filter((id) => app.state.pictures[id]).flatMap(both);
  const first = await Promise.all(known([app.state.current]).map(fetchImage));
  if (!first.every(Boolean)) return;
  const { current, next = [], last } = app.state;
  const wanted = known([current, ...next, last]);
  for (const id of wanted) fetchImage(id);
  for (const id of app.images.keys())
    if (!wanted.includes(id) && !app.screen?.needs?.(id)) app.images.delete(id);
}

function fetchImage(id) {
  if (!app.images.has(id)) {
    const { study, bits } = app.settings;
    const late = () => app.screen?.late?.(id);
    const coming = app.server.image(study, id, late).then((raw) => raw && prepare(raw, bits));
    app.images.set(id, coming);
    coming.then((ready) => {
      if (ready) coming.ready = ready;
      else app.images.delete(id);
    });
  }
  return app.images.get(id);
}
