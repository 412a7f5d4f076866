// The page for practice: its messages go to the notebook's kernel instead of the server.
import { decode, newId, Server } from "./api.js";
import { begin, mount } from "./app.js";

const { model, leave } = window.frameElement.practice;
const PATIENCE = 30000; // a kernel that is busy with a cell answers when the cell is done

class Kernel extends Server {
  call(path, body, limit = PATIENCE) {
    const id = newId();
    return new Promise((done) => {
      const finish = (answer) => {
        model.off("msg:custom", told);
        clearTimeout(timer);
        done({ wait: 0, ...answer });
      };
      const told = (answer, buffers) => answer.id === id && finish({ ...answer, buffers });
      const timer = setTimeout(() => finish({ status: 0, data: {} }), Math.max(limit, PATIENCE));
      model.on("msg:custom", told);
      model.send({ id, path, body });
    });
  }

  async image(_, id) {
    const { status, data, buffers } = await this.call("reading/image", { id });
    if (status !== 200) return null;
    const { buffer, byteOffset, byteLength } = buffers[0];
    return decode(buffer.slice(byteOffset, byteOffset + byteLength), ...data.form);
  }

  // After signing out, the analyst returns to the same record.
  signOut() {
    leave();
    return new Promise(() => {});
  }
}

await begin(new Kernel(""));
mount();
