// The data that this browser stores for one reader of one study, under names of that reader alone.
// Messages on their way, drafts, times, a sign-out
const KINDS = ["", "-draft", "-seconds", "-leaving"];

export class Kept {
  constructor(study, reader, storage = localStorage) {
    this.own = [study, reader].map(encodeURIComponent).join("/");
    this.storage = storage;
  }

  name(kind, id) {
    return `reading${kind}/${this.own}/${id}`;
  }

  // The ids that are kept of a kind, oldest first.
  ids(kind) {
    const prefix = this.name(kind, "");
    const names = Object.keys(this.storage).filter((name) => name.startsWith(prefix));
    return names.sort().map((name) => name.slice(prefix.length));
  }

  get(kind, id) {
    return JSON.parse(this.storage.getItem(this.name(kind, id)) ?? "null");
  }

  // Whether it could be stored: a browser may be set to store nothing.
  put(kind, id, value) {
    try {
      this.storage.setItem(this.name(kind, id), JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  }

  drop(kind, id) {
    this.storage.removeItem(this.name(kind, id));
  }

  // Leave nothing of this reader on the device.
  clear() {
    for (const kind of KINDS) for (const id of this.ids(kind)) this.drop(kind, id);
  }
}
