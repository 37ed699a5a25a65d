// EventStream reads one stream's events with the browser's own EventSource and calls:
//   state(name)     connecting, live, reconnecting or closed, as the browser sees the connection
//   start()         the log comes from its beginning: whatever was gathered before is void
//   text(pieces)    {content, reasoning} to append
//   reset()         the server lost the end of its log; start follows
//   done(ending)    the end, {state, finish_reason, usage, timings}
//   failed(ending)  the end, {error, …}
//   lost()          the browser gave up; nothing more comes
export class EventStream {
  static get supported() {
    return "EventSource" in window;
  }

  #source;
  #on;

  constructor(url, on) {
    this.#on = on;
    this.#source = new EventSource(url);
    this.#source.onopen = () => on.state("live");
    this.#source.onmessage = (event) => this.#chunk(event);
    this.#source.addEventListener("start", () => on.start());
    this.#source.addEventListener("reset", () => on.reset());
    this.#source.addEventListener("done", (event) => this.#end(on.done, event));
    this.#source.addEventListener("error", (event) => this.#error(event));
    on.state("connecting");
  }

  close() {
    this.#source.close();
  }

  #chunk(event) {
    const delta = parse(event.data)?.choices?.[0]?.delta;
    if (!delta) return;
    const content = textOf(delta.content) || textOf(delta.refusal);
    const reasoning = textOf(delta.reasoning_content) || textOf(delta.reasoning);
    if (content || reasoning) this.#on.text({ content, reasoning });
  }

  // The server's error event and a lost connection arrive in the same listener; only the first carries data.
  #error(event) {
    if (event instanceof MessageEvent) {
      this.#end(this.#on.failed, event);
    } else if (this.#source.readyState === EventSource.CONNECTING) {
      this.#on.state("reconnecting"); // the browser comes back by itself, with its Last-Event-ID
    } else {
      this.#on.state("closed");
      this.#on.lost();
    }
  }

  // Closing is our part: EventSource takes every end of a body for a lost connection and would come back.
  #end(callback, event) {
    this.close();
    this.#on.state("closed");
    callback(parse(event.data) ?? {});
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

// Some providers send a delta as a list of parts instead of a string.
function textOf(value) {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.map((part) => textOf(part?.text)).join("");
  return "";
}
