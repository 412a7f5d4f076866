// The data that this browser stores for one reader of one study. The name of each entry contains
// both, so readers who share a device stay apart.

// Unsent messages, drafts, times, a sign-out that has to wait
const KINDS = ["", "-draft", "-seconds", "-leaving"];

export class Kept {
  constructor(study, reader, storage = localStorage) {
    this.own = [study, reader].map(encodeURIComponent).join("/");
    this.storage = storage;
  }

  name(kind, id) {
    return `reading${kind}/${this.own}/${id}`;
  }

  // The ids of one kind, oldest first.
  ids(kind) {
    const prefix = this.name(kind, "");
    const names = Object.keys(this.storage).filter((name) => name.startsWith(prefix));
    return names.sort().map((name) => name.slice(prefix.length));
  }

  get(kind, id) {
    return JSON.parse(this.storage.getItem(this.name(kind, id)) ?? "null");
  }

  // Returns whether it could be stored: a browser may be set to store nothing.
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

  // Remove everything of this reader from the device.
  clear() {
    for (const kind of KINDS) for (const id of this.ids(kind)) this.drop(kind, id);
  }
}
