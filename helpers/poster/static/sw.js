// Keeps the whole page, so that it works without a network after the first visit.
importScripts("data.js");
const NAME = `companion ${COMPANION.version}`;

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));

self.addEventListener("fetch", (event) => event.respondWith(kept(event.request)));

async function install() {
  await (await caches.open(NAME)).addAll(["./", ...COMPANION.files]);
  await self.skipWaiting();
}

async function activate() {
  const earlier = (name) => name.startsWith("companion ") && name !== NAME;
  const names = (await caches.keys()).filter(earlier);
  await Promise.all(names.map((name) => caches.delete(name)));
  await self.clients.claim();
}

async function kept(request) {
  const found = await (await caches.open(NAME)).match(request, { ignoreSearch: true });
  if (!found) return fetch(request);
  const range = /bytes=(\d+)-(\d*)/.exec(request.headers.get("range") || "");
  if (!range) return found;
  // Players ask for parts of a recording; a cache keeps only the whole.
  const whole = await found.blob();
  const from = Number(range[1]);
  const to = range[2] ? Math.min(Number(range[2]), whole.size - 1) : whole.size - 1;
  return new Response(whole.slice(from, to + 1, whole.type), {
    status: 206,
    headers: {
      "Content-Type": whole.type,
      "Content-Length": String(to - from + 1),
      "Content-Range": `bytes ${from}-${to}/${whole.size}`,
    },
  });
}
