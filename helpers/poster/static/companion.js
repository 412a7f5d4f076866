// The companion page: quiz, key figure, slider, explanation. Everything comes from data.js.
"use strict";

const page = self.COMPANION;
const $ = (id) => document.getElementById(id);
const make = (tag, text, kind) =>
  Object.assign(document.createElement(tag), { textContent: text, className: kind || "" });
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
const moving = page.frames.length && !calm;
const FAKE = { generated: "fake", real: "real" };
const KINDS = { xray: "X-ray", ct: "CT image" };

document.title = page.title;
document.querySelector("h1").textContent = page.title;
$("question").textContent = page.question;
$("sources").textContent = page.sources.join(" ");
$("simulated").hidden = !page.simulated.length;
$("simulated").textContent =
  `SIMULATED: ${page.simulated.join(", ")}. A rehearsal: nothing here` +
  " says anything about real images or real readers.";
document.querySelectorAll("[data-needs]").forEach((node) => {
  node.hidden = !page[node.dataset.needs].length;
});

// ---- spot the fake yourself ------------------------------------------------------------------
const kinds = new Set(page.quiz.map((image) => image.truth));
const people = page.readers === 1 ? "The reader" : `The ${page.readers} readers`;
let at = 0;
let score = [];

function ask() {
  const image = page.quiz[at];
  if (!image) return finish();
  $("progress").textContent = `Image ${at + 1} of ${page.quiz.length}`;
  $("shown").src = image.file;
  $("shown").alt = `${KINDS[image.modality]} to judge, number ${at + 1}`;
  $("shown").hidden = $("choices").hidden = false;
  $("verdict").replaceChildren();
  $("next").hidden = true;
  return image;
}

function answer(label) {
  const image = page.quiz[at];
  const right = label === FAKE[image.truth];
  score.push(right);
  $("choices").hidden = true;
  const { real, fake, uncertain } = image.votes;
  const [said, kind] = right ? ["Right", "right"] : ["No", "wrong"];
  $("verdict").append(
    make("p", `${said}: this image is ${image.truth}.`, kind),
    make("p", `${people} said: real ${real}, fake ${fake}, uncertain ${uncertain}.`),
    make("p", image.source, "soft"),
  );
  $("next").textContent = at + 1 < page.quiz.length ? "Next image" : "Your score";
  $("next").hidden = false;
  $("next").focus({ preventScroll: true });
}

function finish() {
  const share = ({ truth, votes }) =>
    votes[FAKE[truth]] / Math.max(1, votes.real + votes.fake + votes.uncertain);
  const theirs = page.quiz.reduce((sum, image) => sum + share(image), 0);
  const yours = score.filter(Boolean).length;
  const were = page.readers === 1 ? "was" : "were, on average,";
  $("progress").textContent = "Your score";
  $("shown").hidden = $("choices").hidden = true;
  $("verdict").replaceChildren(
    make("p", `You were right on ${yours} of ${page.quiz.length} images.`, "right"),
    make(
      "p",
      `${people} ${were} right on ${theirs.toFixed(1)} of them; “uncertain” counts as wrong.`,
    ),
  );
  $("next").textContent = "Again";
  [at, score] = [-1, []];
}

$("ask").textContent = !page.quiz.length
  ? "No image of this study may be shown here."
  : kinds.size === 2
    ? "Is it a real patient's image, or was it generated?"
    : kinds.has("generated")
      ? "No real image may be shown here, so all of these are generated." +
        " What would you have called each of them?"
      : "No generated image may be shown here, so all of these are real. What would you have" +
        " called each of them?";
$("quiz").hidden = !page.quiz.length;
$("choices").addEventListener("click", ({ target: { dataset } }) => {
  if (dataset.answer) answer(dataset.answer);
});
$("next").addEventListener("click", () => {
  at += 1;
  if (ask()) $("choices").firstElementChild.focus({ preventScroll: true });
});
if (page.quiz.length) ask();

// ---- the key figure comes to life --------------------------------------------------------------
const { figure } = page;
const UNIT = 100;
const overlay = $("overlay");
overlay.style.width = `${figure.width * UNIT}px`;
overlay.style.height = `${figure.height * UNIT}px`;
figure.tiles.forEach((tile, number) => {
  if (!tile.truth) return;
  const box = make("div", "", tile.truth);
  const [left, top, side] = [tile.x + figure.gap, tile.y + figure.gap, 2 - 2 * figure.gap];
  Object.entries({ left, top, width: side, height: side }).forEach(([name, value]) => {
    box.style[name] = `${value * UNIT}px`;
  });
  if (number === 0 && page.frames.length) {
    box.append(Object.assign(make("img"), { id: "moving", alt: "", src: page.frames.at(-1) }));
  }
  if (tile.votes) box.append(make("span", tile.votes.fake, `mark ${tile.truth}`));
  overlay.append(box);
});

// Play backwards into noise and forwards again, in a loop.
let tick = 0;
if (!moving) $("moves").textContent = "lights up";
else {
  page.frames.forEach((file) => {
    new Image().src = file;
  });
  setInterval(() => {
    if (overlay.hidden) return;
    const last = page.frames.length - 1;
    tick = (tick + 1) % (2 * last + 16); // a rest at either end
    $("moving").src = page.frames[Math.max(0, Math.min(last, Math.abs(tick - 8 - last)))];
  }, 120);
}

// Lay the overlay's four corners onto `corners`, in pixels of the camera's image or of the figure.
function lay(corners, width) {
  overlay.hidden = !corners;
  overlay.dataset.corners = corners ? JSON.stringify(corners) : "";
  if (!corners) return;
  const scale = $("stage").clientWidth / width;
  const from = Pose.rectangle(0, 0, figure.width * UNIT, figure.height * UNIT);
  const to = corners.map((p) => p.map((value) => value * scale));
  const h = Pose.homography(from, to);
  const columns = [0, 1, 2].map((k) => [h[k], h[k + 3], 0, h[k + 6]]);
  columns.splice(2, 0, [0, 0, 1, 0]);
  overlay.style.transform = `matrix3d(${columns})`;
}

let stop = null;
let starting = false; // a second press would start the camera twice and end it once
function light(on) {
  $("light").setAttribute("aria-pressed", on);
  const { clientWidth, clientHeight } = $("figure");
  lay(on ? Pose.rectangle(0, 0, clientWidth, clientHeight) : null, clientWidth);
}

function still() {
  if (stop) stop();
  stop = null;
  $("view").hidden = true;
  $("figure").hidden = false;
  $("camera").textContent = "Start the camera";
  light(false);
}

$("light").addEventListener("click", () => {
  const on = $("light").getAttribute("aria-pressed") !== "true";
  if (stop) still();
  light(on);
});
$("camera").addEventListener("click", async () => {
  if (starting) return undefined;
  $("camera-says").textContent = "";
  if (stop) return still();
  starting = true;
  try {
    stop = await Camera.start(page, $("view"), (corners) => {
      if ($("view").hidden) return;
      lay(corners, $("view").width);
      document.dispatchEvent(new CustomEvent("pose", { detail: { corners: corners || null } }));
    });
    light(false);
    $("figure").hidden = true;
    $("view").hidden = false;
    $("camera").textContent = "Stop the camera";
  } catch (error) {
    $("camera-says").textContent = error.message;
  }
  starting = false;
  return undefined;
});
addEventListener("resize", () => $("light").getAttribute("aria-pressed") === "true" && light(true));

// ---- how it was made ------------------------------------------------------------------------
function step() {
  const number = Number($("step").value);
  const last = page.frames.length - 1;
  $("frame").src = page.frames[number];
  const named = { 0: "Pure noise", [last]: "The finished image" };
  $("frame").alt = $("step-says").textContent = named[number] ?? `Step ${number} of ${last}`;
}
if (page.frames.length) {
  $("step").max = page.frames.length - 1;
  $("step").addEventListener("input", step);
  step();
}

// ---- listen -----------------------------------------------------------------------------------
const audio = $("audio");
const voice = self.speechSynthesis;
const muted = () => $("mute").getAttribute("aria-pressed") === "true";
let speaking = 0; // counts plays: the rest of an earlier play is dropped
let timer = 0;

page.cues.forEach(({ text }) => $("transcript").append(make("li", text)));
if (page.audio) audio.src = page.audio;

function caption(number) {
  $("caption").textContent = number < 0 ? "" : page.cues[number].text;
  [...$("transcript").children].forEach((line, k) => line.classList.toggle("now", k === number));
}

// The caption at a time of the recording. Without times, each caption gets a share by its length.
function cueAt(time) {
  if (page.cues[0].end) return page.cues.findIndex((cue) => cue.start <= time && time < cue.end);
  const whole = page.cues.reduce((sum, cue) => sum + cue.text.length, 0);
  let left = (time / audio.duration) * whole;
  return page.cues.findIndex((cue) => {
    left -= cue.text.length;
    return left < 0;
  });
}

function silence() {
  speaking += 1;
  clearTimeout(timer);
  if (voice) voice.cancel();
  audio.pause();
  caption(-1);
  $("play").textContent = "Play the explanation";
}

// Sentence by sentence, aloud or, when muted or without a voice, at the pace of reading.
function say(number, turn) {
  if (turn !== speaking) return;
  if (number >= page.cues.length) return silence();
  caption(number);
  const next = () => say(number + 1, turn);
  if (muted() || !voice || !voice.getVoices().length) {
    timer = setTimeout(next, 1000 + 60 * page.cues[number].text.length);
    return;
  }
  const words = Object.assign(new SpeechSynthesisUtterance(page.cues[number].text), { lang: "en" });
  words.onend = next;
  words.onerror = next;
  voice.speak(words);
}

$("play").addEventListener("click", () => {
  const playing = $("play").textContent === "Stop";
  silence();
  if (playing) return;
  $("play").textContent = "Stop";
  if (!page.audio) return say(0, speaking);
  audio.currentTime = 0;
  audio.play().catch(() => say(0, speaking));
});
$("mute").addEventListener("click", () => {
  $("mute").setAttribute("aria-pressed", !muted());
  audio.muted = muted();
  const at = [...$("transcript").children].findIndex((line) => line.className === "now");
  if (at < 0 || page.audio) return;
  clearTimeout(timer);
  speaking += 1;
  if (voice) voice.cancel();
  say(at, speaking);
});
audio.addEventListener("timeupdate", () => !audio.paused && caption(cueAt(audio.currentTime)));
audio.addEventListener("ended", silence);

if (navigator.serviceWorker && isSecureContext && location.protocol !== "file:") {
  navigator.serviceWorker.register("sw.js").catch(() => {});
}
