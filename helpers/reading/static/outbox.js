// Messages of the reader that the server has not yet confirmed. They are put into the browser's
// storage before they are sent. They are sent in order, one at a time, and repeated until the
// server has committed them.
import { newId, now, pause } from "./api.js";

const REFUSED = [400, 413, 422];

export class Outbox {
  // on: {saved(state), refused(), signedOut(), changed(waiting, trouble)}
  constructor(server, kept, on) {
    Object.assign(this, { server, kept, on });
    Object.assign(this, { pumping: false, stopped: false, trouble: "" });
    this.waiting = kept.ids("").map((key) => ({ key, message: kept.get("", key) }));
  }

  put(event, blindId = "", payload = {}, id = newId()) {
    if (this.waiting.some((entry) => entry.message.id === id)) return;
    const message = { id, event, blind_id: blindId, payload, browser_utc: now() };
    // The keys keep the order, also when the device's clock is set back.
    const last = parseInt(this.waiting.at(-1)?.key ?? 0, 10);
    const key = `${String(Math.max(Date.now(), last + 1)).padStart(15, "0")}-${id}`;
    // The page says that the message is not stored; it is sent all the same.
    if (!this.kept.put("", key, message)) this.trouble = "storage";
    this.waiting.push({ key, message });
    this.changed();
    this.pump();
  }

  has(event, blindId) {
    return this.waiting.some(({ message: m }) => m.event === event && m.blind_id === blindId);
  }

  changed() {
    this.on.changed(this.waiting.length, this.trouble);
  }

  async pump() {
    if (this.pumping || this.stopped) return;
    this.pumping = true;
    let wait = 250;
    while (this.waiting.length && !this.stopped) {
      const entry = this.waiting[0];
      const { status, data, wait: asked } = await this.server.record(entry.message);
      if (status === 200 && data.saved && data.id === entry.message.id) {
        this.drop(entry);
        wait = 250;
        this.trouble = "";
        this.on.saved(data.state);
      } else if (REFUSED.includes(status) && entry.message.browser_utc > now()) {
        entry.message.browser_utc = now(); // the device's clock was wrong, as its answer shows
      } else if (REFUSED.includes(status)) {
        this.drop(entry);
        this.on.refused();
      } else if (status === 401) {
        this.stopped = true;
        this.on.signedOut();
      } else {
        this.trouble = status === 0 ? "connection" : "server";
        this.changed();
        await pause(Math.max(wait, asked * 1000));
        wait = Math.min(wait * 2, 4000);
      }
      this.changed();
    }
    this.pumping = false;
  }

  drop(entry) {
    this.kept.drop("", entry.key);
    this.waiting = this.waiting.filter((other) => other !== entry);
  }

  // Wait until everything is saved, at most `limit` milliseconds; returns whether it is.
  async empty(limit = 15000) {
    const end = Date.now() + limit;
    while (this.waiting.length && !this.stopped && Date.now() < end) await pause(50);
    return this.waiting.length === 0;
  }
}
