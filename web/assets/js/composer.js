// Composer is where the prompt is typed. During an answer its button stops that answer, and Enter waits.
export class Composer {
  #form;
  #prompt;
  #send;
  #stop;
  #busy = false;

  constructor({ form, prompt, send, stop, onsend, onstop }) {
    this.#form = form;
    this.#prompt = prompt;
    this.#send = send;
    this.#stop = stop;

    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = prompt.value.trim();
      if (!text || this.#busy || send.disabled) return;
      prompt.value = "";
      this.#fit();
      onsend(text);
    });
    prompt.addEventListener("keydown", (event) => {
      // While an input method composes a character, Enter belongs to it.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      form.requestSubmit();
    });
    prompt.addEventListener("input", () => this.#fit());
    stop.addEventListener("click", onstop);
    this.#fit(); // browsers bring a draft back after a reload
  }

  set busy(busy) {
    if (busy === this.#busy) return;
    this.#busy = busy;
    const [shown, gone] = busy ? [this.#stop, this.#send] : [this.#send, this.#stop];
    const focused = document.activeElement === gone;
    shown.hidden = false;
    gone.hidden = true;
    // The focus must not vanish with a button: who just pressed it goes on by keyboard.
    if (focused) (busy ? shown : this.#prompt).focus({ preventScroll: true });
  }

  set hidden(hidden) {
    this.#form.hidden = hidden;
  }

  disable() {
    this.#send.disabled = true;
    this.#prompt.disabled = true;
  }

  focus() {
    // On a touch screen the focus would bring up the keyboard, in front of the answer.
    if (matchMedia("(pointer: fine)").matches) this.#prompt.focus();
  }

  #fit() {
    if (CSS.supports("field-sizing", "content")) return; // the style sheet does it
    this.#prompt.style.height = "auto";
    this.#prompt.style.height = `${this.#prompt.scrollHeight}px`;
  }
}
