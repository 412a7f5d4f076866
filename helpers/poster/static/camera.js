// Augmented reality: finds the poster's code in the camera's images and lays the overlay over them.
// Nothing of an image leaves the page.
"use strict";

const Camera = {
  SIDE: 640, // pixels in which the code is looked for
  HOLD: 500, // milliseconds for which the figure is followed while its code cannot be read

  // Start; resolves when images arrive, rejects with an Error that has a sentence for the visitor.
  async start(page, canvas, onPose) {
    if (!navigator.mediaDevices) {
      throw new Error(
        "Browsers allow the camera only on pages with a secure address (https), and this page has" +
          " none. Everything else works without it.",
      );
    }
    const wish = { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 720 } };
    const stream = await navigator.mediaDevices
      .getUserMedia({ video: wish, audio: false })
      .catch((error) => {
        throw new Error(Camera.kindly(error.name));
      });
    const video = Object.assign(document.createElement("video"), {
      muted: true,
      playsInline: true,
    });
    video.srcObject = stream;
    await video.play();
    const small = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const state = { corners: null, seen: -Infinity, running: true };
    const look = () => {
      if (!state.running) return;
      [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
      const share = Math.min(1, Camera.SIDE / Math.max(canvas.width, canvas.height));
      small.canvas.width = Math.round(canvas.width * share);
      small.canvas.height = Math.round(canvas.height * share);
      canvas.getContext("2d").drawImage(video, 0, 0);
      small.drawImage(canvas, 0, 0, small.canvas.width, small.canvas.height);
      onPose(Camera.find(page, small, state)?.map((p) => p.map((value) => value / share)));
      requestAnimationFrame(look);
    };
    look();
    return () => {
      state.running = false;
      stream.getTracks().forEach((track) => track.stop());
    };
  },

  kindly: (name) =>
    ({
      NotAllowedError:
        "The camera stays off. If you change your mind, allow it in" +
        " the browser's settings for this page. Everything else works without it.",
      NotFoundError: "No camera was found on this device. Everything else works without it.",
    })[name] ||
    "The camera could not be started; perhaps another app is using it." +
      " Everything else works without it.",

  // The figure's corners in the small image, smoothed, or null.
  find(page, small, state) {
    const { width, height } = small.canvas;
    const image = small.getImageData(0, 0, width, height);
    const read = jsQR(image.data, width, height, { inversionAttempts: "dontInvert" });
    const code = read && read.data === page.address ? read : null;
    const now = performance.now();
    if (code) state.seen = now;
    const before = now - state.seen < Camera.HOLD ? state.corners : null;
    const corners = Pose.corners(image, code, page.figure, before);
    state.corners = corners && Camera.smooth(before, corners);
    return state.corners;
  },

  // A moving hand is followed immediately; trembling is smoothed.
  smooth(before, corners) {
    if (!before) return corners;
    const width = Math.hypot(corners[1][0] - corners[0][0], corners[1][1] - corners[0][1]);
    const moved =
      Math.max(...corners.map((p, i) => Math.hypot(p[0] - before[i][0], p[1] - before[i][1]))) /
      width;
    const weight = Math.min(1, 0.3 + 60 * moved);
    return corners.map((p, i) =>
      p.map((value, k) => before[i][k] + weight * (value - before[i][k])),
    );
  },
};
