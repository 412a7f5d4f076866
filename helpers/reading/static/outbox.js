// What the reader did and the server has not yet said is saved. Kept in the browser's storage before it is sent,
// sent in order, one at a time, again and again until the server has committed it.
import { call, newId, now } from "./api.js";

export class Outbox {
  // told: {saved(message, state), refused(message, reason), signedOut(), changed(waiting, trouble)}
  constructor(study, reader, told) {
    this.prefix = `reading/${study}/${reader}/`;
    this.told = told;
    this.waiting = [];
    this.count = 0;
    this.pumping = false;
    this.stopped = false;
    this.trouble = "";
    for (const key of this.keys()) this.waiting.push({ key, message: JSON.parse(localStorage.getItem(key)) });
  }

  keys() {
    return Object.keys(localStorage)
      .filter((key) => key.startsWith(this.prefix))
      .sort();
  }

  put(event, blindId = "", payload = {}, id = newId()) {
    if (this.waiting.some((entry) => entry.message.id === id)) return id;
    const message = { id, event, blind_id: blindId, payload, browser_utc: now() };
    const key = `${this.prefix}${String(Date.now()).padStart(15, "0")}-${String(this.count++).padStart(6, "0")}`;
    try {
      localStorage.setItem(key, JSON.stringify(message));
    } catch {
      this.trouble = "storage"; // the page says so; the message is still sent
    }
    this.waiting.push({ key, message });
    this.changed();
    this.pump();
    return id;
  }

  has(event, blindId) {
    return this.waiting.some((entry) => entry.message.event === event && entry.message.blind_id === blindId);
  }

  changed() {
    this.told.changed(this.waiting.length, this.trouble);
  }

  async pump() {
    if (this.pumping || this.stopped) return;
    this.pumping = true;
    let wait = 250;
    while (this.waiting.length && !this.stopped) {
      const entry = this.waiting[0];
      const { status, data } = await call("reading/record", { message: entry.message });
      if (status === 200 && data.saved && data.id === entry.message.id) {
        this.drop(entry);
        wait = 250;
        this.trouble = "";
        this.told.saved(entry.message, data.state);
      } else if (status === 422 || status === 413 || status === 400) {
        this.drop(entry);
        this.told.refused(entry.message, data.error ?? "");
      } else if (status === 401) {
        this.stopped = true;
        this.told.signedOut();
      } else {
        this.trouble = status === 0 ? "connection" : "server";
        this.changed();
        await new Promise((done) => (this.wake = setTimeout(done, wait)));
        wait = Math.min(wait * 2, 4000);
        continue;
      }
      this.changed();
    }
    this.pumping = false;
  }

  drop(entry) {
    localStorage.removeItem(entry.key);
    this.waiting = this.waiting.filter((other) => other !== entry);
  }

  async empty(limit = 15000) {
    const end = Date.now() + limit;
    while (this.waiting.length && Date.now() < end) await new Promise((done) => setTimeout(done, 50));
    return this.waiting.length === 0;
  }
}
