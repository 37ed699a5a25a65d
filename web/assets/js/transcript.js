import { AnswerView, PromptView } from "./message.js";

// Transcript shows the messages in their order, each in a view that lives as long as its message.
export class Transcript {
  #root;
  #templates;
  #onretry;
  #views = new Map(); // by message id

  constructor(root, { templates, onretry }) {
    this.#root = root;
    this.#templates = templates;
    this.#onretry = onretry;
  }

  show(messages) {
    const views = new Map();
    for (const message of messages) {
      const view = this.#views.get(message.id) ?? this.#create(message);
      view.show(message);
      views.set(message.id, view);
    }
    for (const [id, view] of this.#views) {
      if (!views.has(id)) view.element.remove();
    }
    this.#views = views;

    // Moving an element that is in its place already would take the focus and the selection out of it.
    let place = this.#root.firstElementChild;
    for (const { element } of views.values()) {
      if (element === place) place = place.nextElementSibling;
      else this.#root.insertBefore(element, place);
    }
  }

  live(id, answer) {
    this.#views.get(id)?.live(answer);
  }

  #create(message) {
    if (message.role === "user") return new PromptView(this.#templates.prompt, message);
    return new AnswerView(this.#templates.answer, { onretry: () => this.#onretry(message.id) });
  }
}
