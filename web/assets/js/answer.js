import { Refusal, Unreachable } from "./api.js";
import { ended } from "./conversation.js";
import { EventStream } from "./stream.js";

// How long to wait before a start that got no answer is sent again.
const START_PAUSES_MS = [500, 1000, 2000, 4000];
// How often to come back by ourselves to a running stream that the browser gave up on.
const REOPENINGS = 3;

const ENDS = { done: "Closed: complete", cancelled: "Closed: stopped", error: "Closed: failed" };

// Answer takes one answer of the conversation from its start to its end. It calls:
//   state(name, words)  the connection; words are for the reader, where the name alone says too little
//   changed(answer)     content, reasoning or problem are new
//   unauthorized()      the server wants a key, or another one; run() goes on once there is one
export class Answer {
  content = "";
  reasoning = "";
  problem = ""; // why this tab cannot follow an answer that may well be running

  #id;
  #api;
  #conversation;
  #on;
  #events = null;
  #starting = false;
  #stopping = false;
  #closed = false;
  #reopened = 0;
  #endPause = () => {};

  constructor(id, { api, conversation, on }) {
    this.#id = id;
    this.#api = api;
    this.#conversation = conversation;
    this.#on = on;
  }

  // run goes on from where the record stands: an answer not yet accepted is sent, a running one is followed.
  run() {
    const { state, stream } = this.#record;
    if (this.#starting || this.#events) return;
    this.#setProblem("");
    this.#reopened = 0;
    if (state === "starting") this.#start();
    else this.#follow(stream.events_url);
  }

  // stop asks the server to cancel. The end then arrives like any other end, as the last event of the log.
  async stop() {
    this.#stopping = true;
    this.#endPause();
    if (this.#starting) return; // #start sees to it as soon as it knows what to cancel
    const { stream } = this.#record;
    if (!stream) return this.#finish({ state: "cancelled" });

    this.#on.state("live", "Stopping…");
    try {
      const known = await this.#api.cancel(stream.id, stream.control_token);
      if (!this.#events && known) this.#finishAs(known);
    } catch (error) {
      this.#stopping = false;
      if (this.#closed) return;
      if (error.status === 401) this.#on.unauthorized();
      else this.#on.state("live", `Could not stop: ${error.message}`);
    }
  }

  // close leaves the answer to itself: another tab has ended it in this state, or it is gone from the conversation.
  close(state) {
    if (this.#events && state) this.#on.state("closed", ENDS[state]);
    this.#closed = true;
    this.#endPause();
    this.#disconnect();
  }

  get #record() {
    return this.#conversation.find(this.#id) ?? {};
  }

  async #start() {
    this.#starting = true;
    this.#on.state("connecting");
    let stream;
    try {
      stream = await this.#send();
    } catch (error) {
      this.#refused(error);
      return;
    } finally {
      this.#starting = false;
    }
    if (stream) this.#accepted(stream);
    else this.#finish({ state: "cancelled" });
  }

  // #send returns the new stream, or nothing if stopped while no attempt was under way.
  async #send() {
    const { model, idempotencyKey } = this.#record;
    const messages = this.#conversation.before(this.#id);
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#api.start({ model, messages, idempotencyKey });
      } catch (error) {
        if (!(error instanceof Unreachable) || attempt === START_PAUSES_MS.length) throw error;
      }
      this.#on.state("connecting", "No connection, trying again…");
      await this.#pause(START_PAUSES_MS[attempt]);
      if (this.#stopping || this.#closed) return undefined;
    }
  }

  #accepted({ id, events_url, control_token, model }) {
    const asked = this.#record.model;
    this.#conversation.patch(this.#id, {
      state: "running", model: model || asked, stream: { id, events_url, control_token },
    });
    if (this.#closed) {
      // Its conversation was emptied while it was being sent: nobody would ever read it.
      this.#api.cancel(id, control_token).catch(() => {});
      return;
    }
    this.#follow(events_url);
    if (this.#stopping) this.stop();
  }

  #refused(error) {
    if (error.status === 401) {
      this.#on.state("idle", "Sign in to go on");
      this.#on.unauthorized();
      return;
    }
    const { message, code, retryAfter } = error;
    // Nobody knows whether an unanswered start arrived: trying again must use the same key.
    this.#finish({ state: "error", error: { message, code, retryAfter, unanswered: error instanceof Unreachable } });
  }

  #follow(url) {
    this.#events = new EventStream(url, {
      state: (name) => this.#on.state(name),
      start: () => this.#write("", ""),
      text: ({ content, reasoning }) => {
        this.#reopened = 0;
        this.#write(this.content + content, this.reasoning + reasoning);
      },
      reset: () => this.#on.state("live", "The server lost part of this answer, reading it again"),
      done: ({ state, ...ending }) => this.#finish({ state: state === "cancelled" ? "cancelled" : "done", ending }),
      failed: ({ error, ...ending }) => this.#finish({ state: "error", error: problemOf(error), ending }),
      lost: () => this.#lost(url),
    });
  }

  // #lost asks why the browser gave up, which it cannot know: EventSource hides the status of an answer.
  async #lost(url) {
    this.#events = null;
    let known;
    try {
      known = await this.#api.stream(url);
    } catch (error) {
      if (this.#closed) return;
      if (error.status === 404 || error.status === 410) {
        const message = "The server no longer has this answer.";
        this.#finish({ state: "error", error: { message, code: error.code } });
      } else {
        if (error.status === 401) this.#on.unauthorized();
        this.#setProblem(error instanceof Refusal ? error.message : "The connection to the server was lost.");
      }
      return;
    }
    if (this.#closed) return;
    if (known && ended(known)) return this.#finishAs(known);

    this.#reopened++;
    if (this.#reopened > REOPENINGS) return this.#setProblem("The connection to this answer was lost.");
    this.#on.state("reconnecting");
    await this.#pause(this.#reopened * 1000);
    if (!this.#closed && !this.#events) this.#follow(url);
  }

  // #finishAs ends with what the server knows, where its log could not be read to the end.
  #finishAs({ state, text, error, finish_reason, usage, timings }) {
    if (!ended({ state })) return;
    this.content = text ?? this.content;
    const problem = state === "error" ? problemOf(error) : undefined;
    this.#finish({ state, error: problem, ending: { finish_reason, usage, timings } });
  }

  #finish(changes) {
    this.#disconnect();
    if (this.#closed) return;
    this.#closed = true;
    this.#on.state("closed", ENDS[changes.state]);
    this.#conversation.patch(this.#id, { ...changes, content: this.content, reasoning: this.reasoning });
  }

  #disconnect() {
    this.#events?.close();
    this.#events = null;
  }

  #write(content, reasoning) {
    this.content = content;
    this.reasoning = reasoning;
    this.#on.changed(this);
  }

  #setProblem(problem) {
    if (problem === this.problem) return;
    this.problem = problem;
    if (problem) this.#on.state("closed", "Closed: connection lost");
    this.#on.changed(this);
  }

  #pause(milliseconds) {
    return new Promise((resolve) => {
      this.#endPause = resolve;
      setTimeout(resolve, milliseconds);
    });
  }
}

function problemOf(error) {
  const { message, code, retryable, retry_after } = error ?? {};
  return { message: message || "The answer failed.", code, retryable, retryAfter: retry_after };
}
