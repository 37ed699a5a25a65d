import { Marked } from "../vendor/marked.esm.js";
import createDOMPurify from "../vendor/purify.es.js";

// Raw HTML in an answer is shown as the text it is; only these bare inline tags mean what they say.
const PLAIN_TAG = /^<\/?(?:br|sub|sup|kbd|mark|ins|del|b|i|u|s|em|strong)\s*\/?>$/i;
const LINK_DEFINITION = /^ {0,3}\[[^\]\n]+\]:/m;

const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escape = (text) => text.replace(/[&<>"']/g, (character) => escapes[character]);

const marked = new Marked({
  renderer: {
    html({ raw, text, block }) {
      if (PLAIN_TAG.test(text.trim())) return text;
      return block ? `<p>${escape(raw.trimEnd())}</p>\n` : escape(raw);
    },
    // An image would tell a stranger's server that, when and where this answer was read.
    image({ href, text, title }) {
      return `<a href="${escape(href)}" title="${escape(title ?? href)}">${escape(text || "image")}</a>`;
    },
    // A form control that cannot be used is noise to a screen reader.
    checkbox({ checked }) {
      return checked ? "☑ " : "☐ ";
    },
  },
});

const purify = createDOMPurify(window); // an instance of our own: its hook is no one else's
const rules = {
  ALLOWED_TAGS: [
    "a", "b", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "ins", "kbd",
    "li", "mark", "ol", "p", "pre", "s", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "u", "ul",
  ],
  ALLOWED_ATTR: ["align", "class", "href", "start", "title"],
  ADD_URI_SAFE_ATTR: ["align", "start"], // else their values would have to look like an address
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  RETURN_DOM_FRAGMENT: true,
};

purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  // A link to our own origin could start a generation in the reader's name: an answer may not offer that.
  if (node.origin === location.origin) node.removeAttribute("href");
  if (!node.hasAttribute("href")) return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer");
});

// MarkdownView renders an answer as it grows. Blocks that can no longer change are rendered once and left alone;
// only what follows them is rendered again with every piece, so that a long answer stays cheap to the end.
export class MarkdownView {
  #root;
  #settled = 0; // length of the text that is rendered for good
  #pending = []; // the nodes of the rest

  constructor(root) {
    this.#root = root;
  }

  clear() {
    this.#root.replaceChildren();
    this.#settled = 0;
    this.#pending = [];
  }

  // grow shows text, which begins with what was shown before.
  grow(text) {
    this.#orPlain(text, () => this.#grow(text));
  }

  // finish shows text for good.
  finish(text) {
    this.#orPlain(text, () => this.#finish(text));
  }

  // The parser recurses: an answer of ten thousand ">" exhausts the stack, and is then shown as it came.
  #orPlain(text, render) {
    try {
      render();
    } catch {
      this.clear();
      const plain = document.createElement("p");
      plain.className = "plain";
      plain.textContent = text;
      this.#root.append(plain);
      this.#pending = [plain];
    }
  }

  #grow(text) {
    const tokens = this.#rest(text);
    let last = tokens.length - 1;
    while (last > 0 && tokens[last].type === "space") last--;
    this.#settle(tokens.slice(0, last));
    this.#pending = this.#append(tokens.slice(last), false);
  }

  #finish(text) {
    // A definition at the end gives meaning to links in blocks long rendered.
    if (LINK_DEFINITION.test(text)) this.clear();
    this.#settle(this.#rest(text));
  }

  #rest(text) {
    for (const node of this.#pending) node.remove();
    this.#pending = [];
    return marked.lexer(normalise(text).slice(this.#settled));
  }

  #settle(tokens) {
    this.#append(tokens, true);
    for (const token of tokens) this.#settled += token.raw.length;
  }

  #append(tokens, forGood) {
    if (tokens.length === 0) return [];
    const fragment = purify.sanitize(marked.parser(tokens), rules);
    frameTables(fragment);
    frameCode(fragment, forGood);
    const nodes = [...fragment.childNodes];
    this.#root.append(fragment);
    return nodes;
  }
}

// The parser counts in text with these line ends, and so must we.
function normalise(text) {
  return text.includes("\r") ? text.replace(/\r\n|\r/g, "\n") : text;
}

function frameTables(fragment) {
  for (const table of fragment.querySelectorAll("table")) {
    const frame = document.createElement("div");
    frame.className = "wide";
    makeScrollable(frame, "Table");
    table.replaceWith(frame);
    frame.append(table);
  }
}

function frameCode(fragment, forGood) {
  for (const pre of fragment.querySelectorAll("pre")) {
    const language = /\blanguage-(\S+)/.exec(pre.firstElementChild?.className ?? "")?.[1] ?? "";
    const frame = document.createElement("div");
    const bar = document.createElement("div");
    const label = document.createElement("span");
    frame.className = "code";
    bar.className = "bar";
    label.textContent = language || "text";
    bar.append(label);
    // A block that still grows is built anew all the time: a button in it could not be pressed.
    if (forGood && navigator.clipboard) bar.append(copyButton(() => pre.textContent));
    makeScrollable(pre, language ? `Code, ${language}` : "Code");
    pre.replaceWith(frame);
    frame.append(bar, pre);
  }
}

// What scrolls sideways must be reachable by the keyboard.
function makeScrollable(element, label) {
  element.tabIndex = 0;
  element.setAttribute("role", "region");
  element.setAttribute("aria-label", label);
}

function copyButton(text) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy quiet";
  button.textContent = "Copy";
  copyOnClick(button, text);
  return button;
}

// copyOnClick lets button copy text() and say how that went.
export function copyOnClick(button, text) {
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
