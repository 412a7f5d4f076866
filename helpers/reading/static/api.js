// Talk to the server: every call has a time limit, so a half-open connection is noticed. On a slow
// network the limit grows.
const LIMIT = 3000;
const IMAGE_LIMIT = 30000;
const LONGEST = 240000;
const A_DAY = 86400000;

export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// The time of this device, or of the server if this device's clock is days off.
let offset = 0;
export const now = () => new Date(Date.now() + offset).toISOString();

export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Server {
  constructor(base) {
    this.base = base;
    this.login = `${base}login`;
    this.limit = LIMIT;
    this.reader = undefined; // known once the state has come
  }

  // {status, data, wait}; status 0 if no answer came in time.
  async call(path, body, limit = this.limit) {
    const headers = { "X-Reading": "1" };
    const request = { headers, signal: AbortSignal.timeout(limit), cache: "no-store" };
    const sent = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
    const began = performance.now();
    try {
      const answer = await fetch(this.base + path, { ...request, ...sent });
      const data = await answer.json().catch(() => ({}));
      this.limit = Math.max(LIMIT, 3 * (performance.now() - began));
      const apart = Date.parse(answer.headers.get("Date")) - Date.now();
      offset = Math.abs(apart) > A_DAY ? apart : 0;
      return { status: answer.status, data, wait: Number(answer.headers.get("Retry-After")) || 0 };
    } catch ({ name }) {
      if (name === "TimeoutError") this.limit = Math.min(2 * limit, LONGEST);
      return { status: 0, data: {}, wait: 0 };
    }
  }

  async state() {
    const answer = await this.call("reading/state");
    this.reader ??= answer.data.reader;
    return answer;
  }

  record(message, code) {
    return this.call("reading/record", { reader: this.reader, message, code });
  }

  signOut() {
    return this.call("logout", {});
  }

  // One image: {values, width, height}. Repeated until it arrives; null if this reader may not load
  // it.
  async image(study, id) {
    const place = [study, this.reader, id].map(encodeURIComponent).join("/");
    let limit = IMAGE_LIMIT;
    for (let wait = 200; ; wait = Math.min(wait * 2, 3000)) {
      try {
        const request = { signal: AbortSignal.timeout(limit), cache: "no-store" };
        const answer = await fetch(`${this.base}reading/image/${place}`, request);
        if (!answer.ok && answer.status < 500) return null;
        if (answer.ok) {
          const form = answer.headers.get("X-Picture").split(" ").map(Number);
          const image = decode(await answer.arrayBuffer(), ...form);
          if (image) return image;
        }
      } catch {
        limit = Math.min(2 * limit, LONGEST);
      }
      await pause(wait);
    }
  }
}

// Raw little-endian pixels as numbers; null when some are missing.
export function decode(bytes, width, height, wide) {
  if (bytes.byteLength !== width * height * wide) return null;
  return { width, height, values: wide === 1 ? new Uint8Array(bytes) : new Uint16Array(bytes) };
}
