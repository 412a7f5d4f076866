// Talk to the server. What stays silent for too long is given up and asked for again, because a
// network that dropped leaves connections half-open. On a slow network the limit grows.
const LIMIT = 3000;
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
  // it. late(): called each time that it did not arrive.
  async image(study, id, late) {
    const place = [study, this.reader, id].map(encodeURIComponent).join("/");
    let { limit } = this;
    for (let wait = 200; ; wait = Math.min(wait * 2, 3000)) {
      try {
        const [answer, bytes] = await heard(`${this.base}reading/image/${place}`, limit);
        if (!answer.ok && answer.status < 500) return null;
        const form = answer.headers.get("X-Picture")?.split(" ").map(Number);
        const image = form && decode(bytes, ...form);
        if (image) return image;
      } catch ({ name }) {
        if (name === "TimeoutError") limit = Math.min(2 * limit, LONGEST);
      }
      late();
      await pause(wait);
    }
  }
}

// An answer and its bytes. An image may take long: it is given up if none of it arrives for `limit`
// milliseconds.
async function heard(address, limit) {
  const stop = new AbortController();
  const silent = () => stop.abort(new DOMException("", "TimeoutError"));
  let timer = setTimeout(silent, limit);
  const transform = (part, on) => {
    clearTimeout(timer);
    timer = setTimeout(silent, limit);
    on.enqueue(part);
  };
  try {
    const answer = await fetch(address, { signal: stop.signal, cache: "no-store" });
    const body = answer.body.pipeThrough(new TransformStream({ transform }));
    return [answer, await new Response(body).arrayBuffer()];
  } finally {
    clearTimeout(timer);
  }
}

// Raw little-endian pixels as numbers; null when some are missing.
export function decode(bytes, width, height, wide) {
  if (bytes.byteLength !== width * height * wide) return null;
  return { width, height, values: wide === 1 ? new Uint8Array(bytes) : new Uint16Array(bytes) };
}
