const ITEM = "weir.conversation";
const ENDED = new Set(["done", "cancelled", "error"]);

export const ended = (message) => ENDED.has(message.state);

// Conversation is the list of messages, kept in localStorage so that reloads and other tabs go on with it. It fires
// "change". A prompt is {id, role: "user", content}; an answer is
//   {id, role: "assistant", state, content, reasoning, model, idempotencyKey, stream, error, ending}
// with state starting (not yet accepted by the server), running, done, cancelled or error.
//
// Tabs may write at the same time: every change reads the list anew, touches one message and writes it back, and an
// answer that has ended never changes again. What a running answer says is not stored at all; each tab reads it from
// the server's log, so all of them come to the same end.
export class Conversation extends EventTarget {
  #messages = [];
  #stored = true;

  constructor() {
    super();
    this.#messages = this.#read();
    window.addEventListener("storage", (event) => {
      if (event.key === ITEM || event.key === null) this.#refresh();
    });
    // A page that comes back out of the back/forward cache has missed the storage events meanwhile.
    window.addEventListener("pageshow", (event) => {
      if (event.persisted) this.#refresh();
    });
  }

  get messages() {
    return this.#messages;
  }

  find(id) {
    return this.#messages.find((message) => message.id === id);
  }

  // before lists what was said before an answer, as the API wants it. An answer that failed before it said anything
  // is left out.
  before(id) {
    const index = this.#messages.findIndex((message) => message.id === id);
    return this.#messages
      .slice(0, index)
      .filter((message) => message.content)
      .map(({ role, content }) => ({ role, content }));
  }

  add(...messages) {
    this.#update((list) => [...list, ...messages]);
  }

  // patch changes an answer that has not ended.
  patch(id, changes) {
    this.#update((list) => list.map((message) =>
      message.id === id && !ended(message) ? { ...message, ...changes } : message));
  }

  // replace puts another answer in the place of one.
  replace(id, message) {
    this.#update((list) => list.map((old) => (old.id === id ? message : old)));
  }

  clear() {
    this.#update(() => []);
  }

  #update(change) {
    this.#messages = change(this.#stored ? this.#read() : this.#messages);
    this.#write();
    this.dispatchEvent(new Event("change"));
  }

  #refresh() {
    if (!this.#stored) return;
    this.#messages = this.#read();
    this.dispatchEvent(new Event("change"));
  }

  #read() {
    try {
      const list = JSON.parse(localStorage.getItem(ITEM) ?? "[]");
      return Array.isArray(list) ? list.filter((message) => message?.id && message.role) : [];
    } catch {
      return [];
    }
  }

  #write() {
    if (!this.#stored) return;
    try {
      localStorage.setItem(ITEM, JSON.stringify(this.#messages));
    } catch {
      // Storage is full or switched off: this tab goes on by itself, without what a reload would bring back.
      this.#stored = false;
    }
  }
}
