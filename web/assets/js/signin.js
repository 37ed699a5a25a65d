// SignIn asks for a key and tries it before it is kept.
export class SignIn {
  #form;
  #input;
  #error;

  constructor({ form, input, error, ontry }) {
    this.#form = form;
    this.#input = input;
    this.#error = error;
    let trying = false;

    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const key = input.value.trim();
      if (!key || trying) return;
      trying = true;
      error.textContent = "";
      try {
        await ontry(key);
        this.hide();
      } catch (problem) {
        error.textContent = problem.message;
        input.select();
      } finally {
        trying = false;
      }
    });
  }

  get visible() {
    return !this.#form.hidden;
  }

  show(message = "") {
    if (message) this.#error.textContent = message;
    if (this.visible) return;
    this.#form.hidden = false;
    this.#form.scrollIntoView({ block: "nearest" });
    this.#input.focus();
  }

  hide() {
    this.#form.hidden = true;
    this.#input.value = "";
    this.#error.textContent = "";
  }
}
