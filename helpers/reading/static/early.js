// While the kernel starts and the widget loads, fetch what the first screen needs.
import { begin } from "./app.js";

begin();
