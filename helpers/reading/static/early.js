// While the kernel starts and the widget loads, fetch what the first screen needs. Answers need no
// kernel. So if the kernel does not start (a busy or broken machine), the page is only delayed.
import { Server } from "./api.js";
import { begin, mount } from "./app.js";

const PATIENCE = 12000;

begin(new Server(document.body.dataset.reading));
setTimeout(mount, PATIENCE);
