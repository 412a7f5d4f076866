// The image on a canvas: 16-bit grey values go through a window/level table to the screen; zoom,
// pan, invert.
const SHARES = {
  auto: [0, 1],
  soft: [-0.35, 1.35],
  hard: [0.2, 0.8],
  dark: [0, 0.5],
  light: [0.5, 1],
};

const within = (value, least, most) => Math.min(Math.max(value, least), most);

// Prepare a fetched image. Its first window is its whole grey range, as for every image (06 gives
// all images one grey scale). It is drawn once off the screen.
export function prepare({ values, width, height }, bits) {
  const top = values instanceof Uint8Array ? 255 : 2 ** (bits || 16) - 1;
  const canvas = new OffscreenCanvas(width, height);
  const ctx = canvas.getContext("2d", { alpha: false });
  const pixels = ctx.createImageData(width, height);
  const out = new Uint32Array(pixels.data.buffer);
  const table = new Uint32Array(65536);
  const ready = { values, width, height, top, canvas, ctx, pixels, out, table };
  develop(ready, 0, top, false);
  return ready;
}

// DICOM PS3.3 C.11.2.1.2.1, linear, for the window [low, high].
function develop(picture, low, high, inverted) {
  const { values, table, out } = picture;
  const width = Math.max(high - low + 1, 1.0001);
  const center = low + width / 2;
  const last = Math.max(picture.top, 255);
  for (let grey = 0; grey <= last; grey++) {
    let shown = ((grey - (center - 0.5)) / (width - 1) + 0.5) * 255;
    shown = shown < 0 ? 0 : shown > 255 ? 255 : shown + 0.5;
    if (inverted) shown = 255.5 - shown;
    const byte = shown & 255;
    table[grey] = 0xff000000 | (byte << 16) | (byte << 8) | byte;
  }
  for (let grey = last + 1; grey < 65536; grey++) table[grey] = table[last];
  for (let i = 0, n = values.length; i < n; i++) out[i] = table[values[i]];
  picture.ctx.putImageData(picture.pixels, 0, 0);
  picture.shown = [low, high, inverted];
}

export class Viewer {
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.ctx = canvas.getContext("2d", { alpha: false });
    this.changed = changed;
    this.pointers = new Map();
    this.picture = null;
    this.overlays = []; // what is drawn over the image
    this.marker = null; // handles a drag that marks instead of setting the window
    this.listen();
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    this.resize();
  }

  // Put a prepared image on the screen immediately.
  show(picture) {
    this.picture = picture;
    this.reset();
    this.draw();
  }

  clear() {
    this.picture = null;
    this.draw();
  }

  reset() {
    Object.assign(this, { zoom: 1, panX: 0, panY: 0, inverted: false });
    if (this.picture) [this.low, this.high] = [0, this.picture.top];
    this.ask();
  }

  preset(name) {
    if (!this.picture) return;
    [this.low, this.high] = SHARES[name].map((share) => share * this.picture.top);
    this.ask();
  }

  invert() {
    this.inverted = !this.inverted;
    this.ask();
  }

  window(dx, dy) {
    if (!this.picture) return;
    const { top } = this.picture;
    const step = top / Math.max(this.canvas.clientHeight, 200);
    const width = within(this.high - this.low + dx * step * 1.5, 2, 2 * top);
    const center = within((this.low + this.high) / 2 + dy * step, -top, 2 * top);
    this.low = center - width / 2;
    this.high = center + width / 2;
    this.ask();
  }

  zoomBy(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const zoom = within(this.zoom * factor, 0.1, 50);
    const [middleX, middleY] = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
    this.panX = x - middleX - ((x - middleX - this.panX) * zoom) / this.zoom;
    this.panY = y - middleY - ((y - middleY - this.panY) * zoom) / this.zoom;
    this.zoom = zoom;
    this.ask();
  }

  // One pixel of the image is one pixel of the screen.
  actualSize() {
    if (!this.picture) return;
    Object.assign(this, { zoom: 1 / this.fit(), panX: 0, panY: 0 });
    this.ask();
  }

  // Screen pixels per image pixel when the whole image is visible.
  fit() {
    const { canvas, picture } = this;
    return Math.min(canvas.width / picture.width, canvas.height / picture.height);
  }

  // The position of pixel (0, 0) of the image on the canvas, in canvas pixels, and the number of
  // canvas pixels per image pixel.
  placed() {
    const { canvas, picture } = this;
    const ratio = canvas.width / Math.max(canvas.clientWidth, 1);
    const scale = this.fit() * this.zoom;
    const left = Math.round(canvas.width / 2 + this.panX * ratio - (picture.width * scale) / 2);
    const top = Math.round(canvas.height / 2 + this.panY * ratio - (picture.height * scale) / 2);
    return { left, top, scale, ratio };
  }

  // The pixel of the image at a place on the screen; outside the image, its nearest edge.
  pixelAt(x, y) {
    const { left, top, scale, ratio } = this.placed();
    return {
      x: within((x * ratio - left) / scale, 0, this.picture.width),
      y: within((y * ratio - top) / scale, 0, this.picture.height),
    };
  }

  // A number of image pixels in screen pixels.
  onScreen(pixels) {
    const { scale, ratio } = this.placed();
    return (pixels * scale) / ratio;
  }

  panBy(dx, dy) {
    this.panX += dx;
    this.panY += dy;
    this.ask();
  }

  // Take over another viewer's window and position. Linked viewers follow each other.
  copy({ low, high, zoom, panX, panY, inverted }) {
    Object.assign(this, { low, high, zoom, panX, panY, inverted });
    this.redraw();
  }

  // The facts about the view that the record keeps.
  view() {
    const round = (value) => Math.round(value * 100) / 100;
    return {
      window_center: round((this.low + this.high) / 2),
      window_width: round(this.high - this.low),
      zoom: round(this.zoom),
      inverted: this.inverted,
    };
  }

  // The same relative to the first window: width 100 and level 0 for every new image.
  relative() {
    const { top } = this.picture;
    const share = (grey) => Math.round((100 * grey) / top);
    const level = share((this.low + this.high - top) / 2);
    const width = share(this.high - this.low);
    return { width, level: level > 0 ? `+${level}` : level, zoom: Math.round(this.zoom * 100) };
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas.parentElement;
    if (!clientWidth || !clientHeight) return;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    this.draw();
  }

  // After every change of the view: here, and beside it where window and zoom are linked.
  ask() {
    this.linked?.copy(this);
    this.redraw();
  }

  redraw() {
    if (this.asked) return;
    this.asked = requestAnimationFrame(() => {
      this.asked = 0;
      this.draw();
    });
  }

  draw() {
    const { canvas, ctx, picture } = this;
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.fillStyle = "#000";
    ctx.fillRect(0, 0, canvas.width, canvas.height);
    if (picture) {
      const [low, high, inverted] = picture.shown;
      if (low !== this.low || high !== this.high || inverted !== this.inverted)
        develop(picture, this.low, this.high, this.inverted);
      const { left, top, scale, ratio } = this.placed();
      // Single pixels are visible only after zooming in; a small image does not start as a mosaic.
      ctx.imageSmoothingEnabled = scale < 4 || this.zoom < 4;
      ctx.drawImage(picture.canvas, left, top, picture.width * scale, picture.height * scale);
      for (const overlay of this.overlays)
        overlay(ctx, (x, y) => [left + x * scale, top + y * scale], ratio);
    }
    this.changed?.(this);
  }

  listen() {
    const { canvas, pointers } = this;
    const spread = () => {
      const [a, b] = [...pointers.values()];
      return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, far: Math.hypot(a.x - b.x, a.y - b.y) };
    };
    let begun = null; // the window when the first finger came down
    let pen = null; // the pen that is on the screen
    canvas.addEventListener("pointerdown", (event) => {
      const { pointerId, pointerType } = event;
      // The hand that holds a pen rests on the screen: beside a pen, a touch does nothing.
      if (pen !== null && pointerType === "touch") return;
      canvas.setPointerCapture(pointerId);
      if (!pointers.size) begun = [this.low, this.high];
      // Two fingers zoom and move. The first finger's first move was not meant for the window, and
      // neither is the last finger's, nor the hand's that came down before its pen.
      if (pointers.size === 1) [this.low, this.high] = begun;
      if (pointerType === "pen") {
        pen = pointerId;
        pointers.clear();
      }
      pointers.set(pointerId, { x: event.offsetX, y: event.offsetY });
      const moving = event.button === 1 || event.button === 2 || event.shiftKey;
      this.drag = pointers.size > 1 ? "pinch" : moving ? "pan" : this.marker ? "mark" : "window";
      if (this.drag === "mark" && this.picture)
        this.marker.begin(this.pixelAt(event.offsetX, event.offsetY));
      else this.marker?.cancel();
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const [dx, dy] = [event.offsetX - before.x, event.offsetY - before.y];
      const first = pointers.size === 2 && spread();
      pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
      if (first) {
        const then = spread();
        this.panBy(then.x - first.x, then.y - first.y);
        if (first.far > 10) this.zoomBy(then.far / first.far, then.x, then.y);
      } else if (this.drag === "pan") this.panBy(dx, dy);
      else if (this.drag === "window") this.window(dx, dy);
      else if (this.drag === "mark")
        this.marker?.stretch(this.pixelAt(event.offsetX, event.offsetY));
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => {
        if (pen === event.pointerId) pen = null;
        if (!pointers.delete(event.pointerId)) return;
        if (this.drag === "mark") end === "pointerup" ? this.marker?.end() : this.marker?.cancel();
      });
    }
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => this.marker || this.reset());
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const turned = Math.max(-60, Math.min(60, event.deltaY));
        this.zoomBy(Math.exp(-turned / 300), event.offsetX, event.offsetY);
      },
      { passive: false },
    );
  }
}
