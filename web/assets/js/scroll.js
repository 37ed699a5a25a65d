// Within this distance of the end the reader counts as being at the end.
const NEAR_PX = 48;

// Follower keeps the end of a growing page in view, but only for a reader who is there; who has scrolled up to read
// stays undisturbed and is offered the way back.
export class Follower {
  #button;
  #following = true;
  #lastY = 0;

  constructor({ content, button }) {
    this.#button = button;
    new ResizeObserver(() => this.#resized()).observe(content);
    window.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    window.addEventListener("resize", () => this.#resized());
    button.addEventListener("click", () => this.toEnd());
  }

  toEnd() {
    this.#following = true;
    this.#jump();
    this.#button.hidden = true;
  }

  #resized() {
    if (this.#following) this.#jump();
    this.#button.hidden = this.#following || this.#distance() <= NEAR_PX;
  }

  #scrolled() {
    // Only a move upwards is the reader's wish: the distance also grows when the page does.
    if (this.#distance() <= NEAR_PX) this.#following = true;
    else if (window.scrollY < this.#lastY) this.#following = false;
    this.#lastY = window.scrollY;
    this.#button.hidden = this.#following;
  }

  #distance() {
    const page = document.documentElement;
    return page.scrollHeight - page.clientHeight - window.scrollY;
  }

  #jump() {
    window.scrollTo(0, document.documentElement.scrollHeight);
    this.#lastY = window.scrollY;
  }
}
