// The widget that Voila shows: it hands its texts to the page's own module. Answers never travel through it.
export default {
  async render({ model }) {
    const base = document.body.dataset.reading ?? "/";
    const app = await import(new URL(`${base}reading/static/app.js`, location.origin).href);
    await app.mount(model.get("told"));
  },
};
