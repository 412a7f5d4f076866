// Talk to the server: every call has a time limit, so a half-open connection is noticed.
export const base = document.body.dataset.reading ?? "/";
const LIMIT = 3000;

// {status, data}; status 0 when nothing came back in time.
export async function call(path, body, limit = LIMIT) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), limit);
  try {
    const told = { headers: { "X-Reading": "1" }, signal: abort.signal, cache: "no-store", credentials: "same-origin" };
    if (body !== undefined) Object.assign(told, { method: "POST", body: JSON.stringify(body) });
    const answer = await fetch(base + path, told);
    return { status: answer.status, data: await answer.json().catch(() => ({})), wait: Number(answer.headers.get("Retry-After")) || 0 };
  } catch {
    return { status: 0, data: {}, wait: 0 };
  } finally {
    clearTimeout(timer);
  }
}

// One picture: {values, width, height}. Tried until it comes; null when this reader may not load it (any more).
export async function picture(study, reader, blindId) {
  for (let wait = 200; ; wait = Math.min(wait * 2, 3000)) {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), 30000);
    try {
      const answer = await fetch(`${base}reading/image/${study}/${reader}/${blindId}`, { signal: abort.signal, cache: "no-store" });
      if (answer.ok) {
        const [width, height, wide] = answer.headers.get("X-Picture").split(" ").map(Number);
        const bytes = await answer.arrayBuffer();
        if (bytes.byteLength === width * height * wide) return { width, height, values: wide === 1 ? new Uint8Array(bytes) : new Uint16Array(bytes) };
      } else if (answer.status < 500) return null;
    } catch {
      // tried again below
    } finally {
      clearTimeout(timer);
    }
    await new Promise((done) => setTimeout(done, wait));
  }
}

export const now = () => new Date().toISOString();

export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
