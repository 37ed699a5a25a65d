// A server that neither answers nor refuses within this time counts as unreachable.
const PATIENCE_MS = 20_000;

// Refusal is an answer other than 2xx, in the server's own words.
export class Refusal extends Error {
  constructor(status, { message, code, retryAfter } = {}) {
    super(message || `The server answered with status ${status}.`);
    this.status = status;
    this.code = code ?? "";
    this.retryAfter = retryAfter;
  }
}

// Unreachable means that no answer came: whether the request arrived is unknown.
export class Unreachable extends Error {
  constructor() {
    super("The server cannot be reached.");
  }
}

// Api speaks the JSON calls. The events themselves are read by EventStream.
export class Api {
  #session;

  constructor(session) {
    this.#session = session;
  }

  // models lists the model names, the server's default first.
  async models(key = this.#session.key) {
    const list = await this.#call("/v1/models", { key });
    return (list?.data ?? []).map((model) => model.id);
  }

  // start begins a generation. The same idempotency key and body join the generation already begun, so a start that
  // got no answer can safely be sent again.
  async start({ model, messages, idempotencyKey }) {
    const body = model ? { model, messages } : { messages };
    const headers = { "Idempotency-Key": idempotencyKey };
    const stream = await this.#call("/v1/streams", { method: "POST", body, headers });
    if (!stream?.id || !stream.events_url) throw new Error("The server sent something else than a stream.");
    return stream;
  }

  // stream tells what the server knows about the stream behind an events URL.
  stream(eventsURL) {
    const url = new URL(eventsURL, location.href);
    url.pathname = url.pathname.replace(/\/events$/, "");
    // A read token speaks for itself; the key of another owner beside it would only be in the way.
    const key = url.searchParams.has("token") ? "" : this.#session.key;
    return this.#call(url, { key });
  }

  cancel(id, controlToken) {
    const key = controlToken || this.#session.key;
    return this.#call(`/v1/streams/${encodeURIComponent(id)}/cancel`, { method: "POST", body: {}, key });
  }

  async #call(url, { method = "GET", headers = {}, body, key = this.#session.key } = {}) {
    const options = { method, headers: { ...headers }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) };
    if (key) options.headers.Authorization = `Bearer ${key}`;
    if (body) {
      options.headers["Content-Type"] = "application/json";
      options.body = JSON.stringify(body);
    }

    let response, answer;
    try {
      response = await fetch(url, options);
      answer = await response.text();
    } catch {
      throw new Unreachable();
    }
    if (response.ok) return parse(answer);
    throw new Refusal(response.status, {
      ...parse(answer)?.error,
      retryAfter: Number.parseInt(response.headers.get("Retry-After"), 10) || undefined,
    });
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // a proxy's HTML page, or nothing
  }
}
