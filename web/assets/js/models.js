const ITEM = "weir.model";

// ModelPicker offers the server's models, its default first, and remembers the choice for all tabs to come.
export class ModelPicker {
  #select;
  #api;

  constructor(select, api) {
    this.#select = select;
    this.#api = api;
    select.addEventListener("change", () => remember(select.value));
  }

  // The empty name leaves the choice to the server.
  get value() {
    return this.#select.value;
  }

  async load() {
    const names = await this.#api.models();
    if (names.length === 0) return;
    const chosen = this.#select.value || remembered();
    this.#select.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(chosen)) this.#select.value = chosen;
  }
}

function remembered() {
  try {
    return localStorage.getItem(ITEM);
  } catch {
    return null;
  }
}

function remember(name) {
  try {
    localStorage.setItem(ITEM, name);
  } catch {
    // Then it is chosen anew next time.
  }
}
