import { ended } from "./conversation.js";
import { copyOnClick, MarkdownView } from "./markdown.js";

// Rendering may take this share of the page's time; the rest stays with the reader's scrolling and typing.
const RENDER_SHARE = 0.25;

const clone = (template) => template.content.firstElementChild.cloneNode(true);

// PromptView shows what the reader asked, exactly as typed.
export class PromptView {
  constructor(template, { content }) {
    this.element = clone(template);
    this.element.querySelector(".content").textContent = content;
  }

  show() {}
}

// AnswerView shows one answer: while it grows by live(), and by show() what the conversation records of it.
export class AnswerView {
  #record = {};
  #live = { content: "", reasoning: "", problem: "" };
  #markdown;
  #shown = ""; // the content as rendered last
  #scheduled = false;
  #notBefore = 0;
  #parts;

  constructor(template, { onretry }) {
    this.element = clone(template);
    const part = (selector) => this.element.querySelector(selector);
    this.#parts = {
      thinking: part(".thinking"), reasoning: part(".reasoning"), waiting: part(".waiting"), content: part(".content"),
      error: part(".error"), reason: part(".reason"), meta: part(".meta"), facts: part(".facts"),
    };
    this.#markdown = new MarkdownView(this.#parts.content);
    part(".retry").addEventListener("click", onretry);
    copyOnClick(part(".meta .copy"), () => this.#record.content);
  }

  show(record) {
    if (ended(this.#record)) return; // an ended answer never changes
    this.#record = record;
    this.element.setAttribute("aria-label", record.model ? `Answer of ${record.model}` : "Answer");
    if (ended(record)) {
      this.#live = { content: record.content ?? "", reasoning: record.reasoning ?? "", problem: "" };
      this.#render(); // not on the next frame: a tab in the background has none
    } else {
      this.#frame();
    }
  }

  live({ content, reasoning, problem }) {
    if (ended(this.#record)) return;
    this.#live = { content, reasoning, problem };
    this.#schedule();
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const wait = this.#notBefore - performance.now();
    const render = () => requestAnimationFrame(() => {
      this.#scheduled = false;
      if (!ended(this.#record)) this.#render();
    });
    if (wait > 0) setTimeout(render, wait);
    else render();
  }

  #render() {
    const before = performance.now();
    const { content, reasoning } = this.#live;
    if (!content.startsWith(this.#shown)) this.#markdown.clear(); // the log came again from its start
    if (ended(this.#record)) this.#markdown.finish(content);
    else if (content !== this.#shown) this.#markdown.grow(content);
    this.#shown = content;
    this.#reason(reasoning);
    this.#frame();
    const spent = performance.now() - before;
    this.#notBefore = before + spent / RENDER_SHARE;
  }

  #reason(reasoning) {
    const { thinking, reasoning: target } = this.#parts;
    thinking.hidden = !reasoning;
    const shown = target.textContent;
    if (reasoning.startsWith(shown)) target.append(reasoning.slice(shown.length));
    else target.textContent = reasoning;
  }

  // #frame sets everything around the text.
  #frame() {
    const { state, error, stream } = this.#record;
    const { content, problem } = this.#live;
    const failure = problem ? { message: problem } : error;
    const running = !ended(this.#record) && !problem;
    this.element.dataset.state = failure ? "error" : running ? "running" : state;
    this.element.dataset.streamId = stream?.id ?? "";
    this.element.setAttribute("aria-busy", String(running));

    const { waiting, error: box, reason, meta, facts } = this.#parts;
    waiting.hidden = !running || Boolean(content);
    box.hidden = !failure;
    reason.textContent = failure ? reasonOf(failure) : "";
    meta.hidden = state !== "cancelled" && !(state === "done" && content);
    facts.textContent = meta.hidden ? "" : factsOf(this.#record).join(" · ");
    meta.lastElementChild.hidden = !content || !navigator.clipboard;
  }
}

function reasonOf({ message, retryAfter }) {
  const seconds = Math.ceil(retryAfter ?? 0);
  if (!seconds || message.includes(seconds)) return message; // the message says so itself
  return `${message} The server asks to wait ${seconds} ${seconds === 1 ? "second" : "seconds"}.`;
}

function factsOf({ state, model, ending = {} }) {
  const { finish_reason, usage, timings } = ending;
  const facts = [];
  if (state === "cancelled") facts.push("Stopped");
  if (finish_reason === "length") facts.push("Cut off at the length limit");
  if (finish_reason === "content_filter") facts.push("Cut off by a content filter");
  if (model) facts.push(model);
  const tokens = usage?.completion_tokens ?? usage?.output_tokens;
  const about = usage?.source && usage.source !== "provider" ? "about " : "";
  if (tokens) facts.push(`${about}${tokens} ${tokens === 1 ? "token" : "tokens"}`);
  if (timings?.total_ms) facts.push(`${(timings.total_ms / 1000).toFixed(1)} s`);
  return facts;
}
