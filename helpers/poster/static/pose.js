// Where the key figure lies in a camera's image: from the QR code's corners, then from its rim.
"use strict";

const Pose = {
  // The homography, 9 numbers by rows, that takes four points [x, y] to four others.
  homography(from, to) {
    const rows = from.flatMap(([x, y], i) => {
      const [u, v] = to[i];
      return [
        [x, y, 1, 0, 0, 0, -u * x, -u * y, u],
        [0, 0, 0, x, y, 1, -v * x, -v * y, v],
      ];
    });
    for (let i = 0; i < 8; i += 1) {
      // Gauss and Jordan, with pivots
      const larger = (b, row, k) => (Math.abs(row[i]) > Math.abs(rows[b][i]) ? i + k : b);
      const best = rows.slice(i).reduce(larger, i);
      [rows[i], rows[best]] = [rows[best], rows[i]];
      const pivot = rows[i].map((value) => value / rows[i][i]);
      rows.forEach((row, k) => {
        rows[k] = k === i ? pivot : row.map((value, j) => value - row[i] * pivot[j]);
      });
    }
    return [...rows.map((row) => row[8]), 1];
  },

  apply(h, [x, y]) {
    const w = h[6] * x + h[7] * y + h[8];
    return [(h[0] * x + h[1] * y + h[2]) / w, (h[3] * x + h[4] * y + h[5]) / w];
  },

  rectangle: (x, y, w, h) => [
    [x, y],
    [x + w, y],
    [x + w, y + h],
    [x, y + h],
  ],

  // The figure's corners in the image (RGBA), null when it is not seen. `code`: a decoded QR code,
  // or null to follow the figure from `before`, its corners a moment ago. `figure`: see data.js.
  corners(image, code, figure, before) {
    const { width, height, paper } = figure;
    const { x, y, size } = figure.code;
    const outline = Pose.rectangle(0, 0, width, height);
    const rim = Pose.rectangle(paper, paper, width - 2 * paper, height - 2 * paper);
    if (!code && !before) return null;
    const named = ["topLeftCorner", "topRightCorner", "bottomRightCorner", "bottomLeftCorner"];
    const seen = code && named.map((name) => code.location[name]).map((p) => [p.x, p.y]);
    const plane = code
      ? Pose.homography(Pose.rectangle(x, y, size, size), seen)
      : Pose.homography(outline, before);
    const rough = rim.map((p) => Pose.apply(plane, p));
    // The code's corners are close together, so the figure's corners computed from them are a few
    // percent off.
    for (const reach of [0.06, 0.12]) {
      const near = Pose.onRim(image, rough, reach);
      const exact = near && Pose.onRim(image, near, 0.02);
      if (exact) return outline.map((p) => Pose.apply(Pose.homography(rim, exact), p));
    }
    return code && outline.map((p) => Pose.apply(plane, p));
  },

  // The corners, moved to the rim's outer edge, where white paper turns black; null when a side of
  // the rim is not seen. `reach`: how far to look, as a share of the width.
  onRim(image, corners, reach) {
    const [a, b] = corners;
    const far = Math.max(4, reach * Math.hypot(b[0] - a[0], b[1] - a[1]));
    const sides = corners.map((from, i) => Pose.side(image, from, corners[(i + 1) % 4], far));
    if (sides.includes(null)) return null;
    return corners.map((_, i) => {
      const [[p, q], [r, s]] = [sides[(i + 3) % 4], sides[i]];
      const [ux, uy, vx, vy] = [q[0] - p[0], q[1] - p[1], s[0] - r[0], s[1] - r[1]];
      const t = ((r[0] - p[0]) * vy - (r[1] - p[1]) * vx) / (ux * vy - uy * vx);
      return [p[0] + t * ux, p[1] + t * uy];
    });
  },

  // Two points of the line along which white turns to black, near the side from a to b; null when
  // it is not seen.
  side(image, a, b, far) {
    const length = Math.hypot(b[0] - a[0], b[1] - a[1]);
    const along = [(b[0] - a[0]) / length, (b[1] - a[1]) / length];
    const inward = [-along[1], along[0]]; // corners run clockwise on the screen
    const found = [];
    for (let s = 0.06; s <= 0.94; s += 0.02) {
      const from = [a[0] + s * length * along[0], a[1] + s * length * along[1]];
      let best = { drop: 18 };
      for (let d = -far; d <= far; d += 0.5) {
        const [out, ins] = [d - 1.5, d + 1.5].map((e) =>
          Pose.grey(image, from[0] + e * inward[0], from[1] + e * inward[1]),
        );
        if (out - ins > best.drop) best = { drop: out - ins, d };
      }
      if (best.d !== undefined) found.push([s * length, best.d]);
    }
    let line = [0, 0];
    let kept = found;
    for (let round = 0; round < 4 && kept.length >= 12; round += 1) {
      line = round ? Pose.fit(kept) : [median(found.map((p) => p[1])), 0];
      const off = ([t, d]) => Math.abs(d - line[0] - line[1] * t);
      const limit = Math.max(1, 2 * median(kept.map(off)));
      kept = found.filter((p) => off(p) <= limit);
    }
    if (kept.length < 20) return null;
    return [0, length].map((t) =>
      [0, 1].map((k) => a[k] + t * along[k] + (line[0] + line[1] * t) * inward[k]),
    );
  },

  fit(points) {
    // least squares d = p + q t
    const mean = [0, 1].map((k) => points.reduce((sum, p) => sum + p[k], 0) / points.length);
    const up = points.reduce((sum, [t, d]) => sum + (t - mean[0]) * (d - mean[1]), 0);
    const q = up / points.reduce((sum, [t]) => sum + (t - mean[0]) ** 2, 0);
    return [mean[1] - q * mean[0], q];
  },

  grey({ data, width, height }, x, y) {
    const [i, j] = [Math.round(x), Math.round(y)];
    if (i < 0 || j < 0 || i >= width || j >= height) return 0;
    return data[4 * (j * width + i) + 1];
  },
};

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
