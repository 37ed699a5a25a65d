const ITEM = "weir.key";

// Session holds the client key. sessionStorage, not localStorage: the key ends with the tab, and no other tab sees it.
export class Session {
  #key = "";

  constructor() {
    try {
      this.#key = sessionStorage.getItem(ITEM) ?? "";
    } catch {
      // Storage is switched off: the key then lasts until the page is left.
    }
  }

  get key() {
    return this.#key;
  }

  set key(key) {
    this.#key = key;
    try {
      if (key) sessionStorage.setItem(ITEM, key);
      else sessionStorage.removeItem(ITEM);
    } catch {
      // As above.
    }
  }
}
