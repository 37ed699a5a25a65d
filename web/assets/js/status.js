const WORDS = {
  idle: "Ready",
  connecting: "Connecting…",
  live: "Live",
  reconnecting: "Reconnecting…",
  closed: "Closed",
};

// Status says in words how the connection is. It is the page's one live region: a screen reader hears that an answer
// began and ended, not every token of it.
export class Status {
  #element;

  constructor(element) {
    this.#element = element;
  }

  show(state, words = WORDS[state]) {
    this.#element.dataset.state = state;
    // Writing the same words again would make some screen readers say them again.
    if (this.#element.textContent !== words) this.#element.textContent = words;
  }
}
