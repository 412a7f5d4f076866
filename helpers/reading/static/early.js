// While the kernel starts and the widget loads, fetch what the first screen needs. Answers need no kernel, so a
// kernel that does not come (a crowded machine, a broken one) delays the page and does not keep the reader from it.
import { Server } from "./api.js";
import { begin, mount } from "./app.js";

const PATIENCE = 12000;

begin(new Server(document.body.dataset.reading));
setTimeout(mount, PATIENCE);
