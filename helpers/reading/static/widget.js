// The widget that Voila shows: its traits are the page's texts, settings and questions. Answers never travel through it.
export default {
  async render({ model }) {
    const base = document.body.dataset.reading;
    const app = await import(new URL(`${base}reading/static/app.js`, location.origin).href);
    await app.mount({ settings: model.get("settings"), words: model.get("words") });
  },
};
