import { Answer } from "./answer.js";
import { Api } from "./api.js";
import { Composer } from "./composer.js";
import { Conversation, ended } from "./conversation.js";
import { randomID } from "./ids.js";
import { ModelPicker } from "./models.js";
import { Follower } from "./scroll.js";
import { Session } from "./session.js";
import { SignIn } from "./signin.js";
import { Status } from "./status.js";
import { EventStream } from "./stream.js";
import { Transcript } from "./transcript.js";

const byId = (id) => document.getElementById(id);

// App wires the page. The conversation is what the page shows; sync() makes everything else agree with it, whoever
// changed it: the reader, the end of an answer, or another tab.
class App {
  #session = new Session();
  #api = new Api(this.#session);
  #conversation = new Conversation();
  #status = new Status(byId("status"));
  #models = new ModelPicker(byId("model"), this.#api);
  #follower = new Follower({ content: document.querySelector("main"), button: byId("latest") });
  #answers = new Map(); // the answers this tab works on, by message id
  #ours = new Set(); // ids of answers that this tab has to send to the server
  #transcript;
  #composer;
  #signIn;

  constructor() {
    this.#transcript = new Transcript(byId("transcript"), {
      templates: { prompt: byId("prompt-template"), answer: byId("answer-template") },
      onretry: (id) => this.#retry(id),
    });
    this.#composer = new Composer({
      form: byId("composer"), prompt: byId("prompt"), send: byId("send"), stop: byId("stop"),
      onsend: (text) => this.#send(text),
      onstop: () => this.#stop(),
    });
    this.#signIn = new SignIn({
      form: byId("signin"), input: byId("key"), error: byId("signin-error"),
      ontry: (key) => this.#trySignIn(key),
    });
    byId("sign-out").addEventListener("click", () => this.#signOut());
    byId("new-chat").addEventListener("click", () => this.#newChat());
    for (const example of document.querySelectorAll(".examples button")) {
      example.addEventListener("click", () => this.#send(example.textContent));
    }
    this.#conversation.addEventListener("change", () => this.#sync());
  }

  run() {
    if (!EventStream.supported) {
      this.#composer.disable();
      document.querySelector(".examples").hidden = true;
      this.#status.show("closed", "This browser has no EventSource, so no answer can be streamed to it.");
      this.#transcript.show(this.#conversation.messages);
      this.#showState();
      return;
    }
    // What a reload interrupted before the server had accepted it is sent again: the key is stored beside it, so it
    // joins the generation if there is one already.
    for (const { id } of this.#conversation.messages) this.#ours.add(id);
    this.#sync();
    this.#loadModels();
  }

  #sync() {
    const { messages } = this.#conversation;
    this.#transcript.show(messages);
    for (const [id, answer] of this.#answers) {
      const message = this.#conversation.find(id);
      if (message && !ended(message)) continue;
      this.#answers.delete(id);
      answer.close(message?.state);
    }
    if (messages.length === 0) this.#status.show("idle");
    for (const message of messages) this.#attend(message);
    this.#showState();
  }

  // #attend follows a running answer, and sends one that is ours to send. One that another tab is just sending is
  // left alone until that tab has its stream.
  #attend({ id, role, state, stream }) {
    if (role !== "assistant" || ended({ state }) || this.#answers.has(id)) return;
    if (state === "starting" && !this.#ours.has(id)) return;
    this.#answer(id).run();
  }

  #answer(id) {
    const answer = new Answer(id, {
      api: this.#api,
      conversation: this.#conversation,
      on: {
        state: (name, words) => this.#status.show(name, words),
        changed: (changed) => {
          this.#transcript.live(id, changed);
          this.#showState();
        },
        unauthorized: () => this.#askForKey(),
      },
    });
    this.#answers.set(id, answer);
    return answer;
  }

  #send(text) {
    const prompt = { id: randomID(), role: "user", content: text };
    const answer = this.#newAnswer(this.#models.value);
    this.#follower.toEnd();
    this.#conversation.add(prompt, answer);
    this.#composer.focus();
  }

  #newAnswer(model, idempotencyKey = randomID()) {
    const answer = { id: randomID(), role: "assistant", state: "starting", content: "", model, idempotencyKey };
    this.#ours.add(answer.id);
    return answer;
  }

  #stop() {
    for (const { id, role, state } of this.#conversation.messages) {
      if (role !== "assistant" || ended({ state })) continue;
      (this.#answers.get(id) ?? this.#answer(id)).stop();
    }
  }

  #retry(id) {
    const old = this.#conversation.find(id);
    if (!old) return;
    this.#composer.focus(); // the button that was pressed goes away
    if (!ended(old)) {
      this.#answers.get(id)?.run();
    } else if (old.error?.unanswered) {
      this.#conversation.replace(id, this.#newAnswer(old.model, old.idempotencyKey));
    } else {
      this.#conversation.replace(id, this.#newAnswer(this.#models.value || old.model));
    }
  }

  #newChat() {
    this.#stop(); // nobody would ever read the rest of it
    this.#conversation.clear();
    this.#composer.focus();
  }

  async #loadModels() {
    try {
      await this.#models.load();
    } catch (error) {
      if (error.status === 401) this.#askForKey();
      else this.#status.show("idle", `The models could not be listed: ${error.message}`);
    }
  }

  async #trySignIn(key) {
    // No header can carry it: fetch would fail in words that help nobody.
    if (!/^[\x21-\x7e]+$/.test(key)) throw new Error("A key has no spaces or accented letters.");
    try {
      await this.#api.models(key);
    } catch (error) {
      throw error.status === 401 ? new Error("The server does not accept this key.") : error;
    }
    this.#session.key = key;
    this.#signIn.hide();
    this.#status.show("idle");
    this.#showState();
    this.#composer.focus();
    this.#loadModels();
    for (const answer of this.#answers.values()) answer.run();
  }

  #askForKey() {
    const refused = this.#session.key !== "";
    this.#session.key = "";
    this.#signIn.show(refused ? "The server no longer accepts the key that was given." : "");
    this.#showState();
  }

  #signOut() {
    this.#session.key = "";
    this.#signIn.show();
    this.#showState();
  }

  #showState() {
    const { messages } = this.#conversation;
    const running = messages.filter((message) => message.role === "assistant" && !ended(message));
    this.#composer.busy = running.some(({ id }) => !this.#answers.get(id)?.problem);
    this.#composer.hidden = this.#signIn.visible;
    byId("welcome").hidden = messages.length > 0;
    byId("new-chat").hidden = messages.length === 0;
    byId("sign-out").hidden = this.#session.key === "";
    document.documentElement.dataset.signedOut = String(this.#signIn.visible);
  }
}

new App().run();
