// Talks to the service: models, pictures, the stream; sends the API key with each.

import { readGrey } from "./png.js";

const KEY = "rtformer-api-key";
const PROTOCOL = "rtformer.v1";

const LATER = new Set([408, 429]); // of what is refused for the request's sake, this may be taken at another time

/** What the service, or the way to it, says against a request. `wantsKey`: a key is missing or wrong; `final`: so it will stay. */
export class ServiceError extends Error {
  constructor(text, { wantsKey = false, final = false } = {}) {
    super(text);
    this.wantsKey = wantsKey;
    this.final = final;
  }
}

export class Service {
  #key = sessionStorage.getItem(KEY) ?? "";

  get hasKey() {
    return this.#key !== "";
  }

  /** Throws an Error for what no key can be. */
  setKey(key) {
    if (!/^[!-~]*$/.test(key)) throw new ServiceError("A key is made of ASCII characters without spaces.", { wantsKey: true });
    this.#key = key;
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  }

  async models() {
    return (await this.#ask("v1/models")).json();
  }

  /** A picture's Blob -> {labels, confidence, labelsPng, timing}: maps of {width, height, values}, no confidence if the model has none. */
  async segment(model, picture, signal) {
    const query = new URLSearchParams({ output: "json" });
    query.append("include", "labels");
    if (model.confidence) query.append("include", "confidence");
    const answer = await this.#post(model, picture, query, signal);
    const document = await answer.json();
    const labelsPng = fromBase64(document.labels);
    const labels = await readGrey(labelsPng);
    const confidence = document.confidence ? await readGrey(fromBase64(document.confidence)) : null;
    return { labels, confidence, labelsPng, timing: readTiming(answer.headers.get("server-timing") ?? "") };
  }

  /** A picture's Blob -> its overlay as a PNG's Blob: `alpha` from 0 to 1, the classes in `hidden` left out. */
  async overlay(model, picture, alpha, hidden, signal) {
    const query = new URLSearchParams({ output: "overlay", alpha });
    for (const id of hidden) query.append("hide", id);
    return (await this.#post(model, picture, query, signal)).blob();
  }

  /** A picture's Blob -> the polygons of its classes, a GeoJSON FeatureCollection. */
  async polygons(model, picture) {
    const query = new URLSearchParams({ output: "json", include: "polygons" });
    return (await (await this.#post(model, picture, query)).json()).polygons;
  }

  /** Opens a WebSocket for frames. A browser cannot set headers on it, so the key travels as a subprotocol. */
  stream(model) {
    const address = new URL(`v1/stream/${encodeURIComponent(model.name)}`, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const protocols = this.#key ? [PROTOCOL, `bearer.${toBase64Url(this.#key)}`] : [PROTOCOL];
    const socket = new WebSocket(address, protocols);
    socket.binaryType = "arraybuffer";
    return socket;
  }

  #post(model, picture, query, signal) {
    const body = new Blob([picture], { type: "application/octet-stream" }); // the bytes say what they are, not the file's name
    return this.#ask(`v1/segment/${encodeURIComponent(model.name)}?${query}`, { method: "POST", body, signal });
  }

  async #ask(path, options = {}) {
    const headers = this.#key ? { Authorization: `Bearer ${this.#key}` } : {};
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServiceError("The service did not answer. Is it still running?");
    }
    if (!answer.ok) throw await refusal(answer);
    return answer;
  }
}

async function refusal(answer) {
  const document = await answer.json().catch(() => ({}));
  const text = [document.error ?? `The service answered with status ${answer.status}.`, document.hint].filter(Boolean).join(" ");
  return new ServiceError(text, { wantsKey: answer.status === 401, final: answer.status < 500 && !LATER.has(answer.status) });
}

/** A Server-Timing header -> {queue, engine} in milliseconds. */
function readTiming(header) {
  const times = Object.fromEntries(
    header.split(",").map((part) => {
      const [name, value] = part.trim().split(";dur=");
      return [name, Number(value)];
    }),
  );
  return { queue: times.queue, engine: times.compute_infer };
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

function toBase64Url(text) {
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
