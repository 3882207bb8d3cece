// Frames of a playing video over the WebSocket, at most two under way. Each answer is shown over the very frame that it belongs to.

import { readGrey } from "./png.js";

const UNDER_WAY = 2; // one in the engine, one that waits for it
const SMALLEST = 640; // pixels along the longer side: frames are not made smaller than this
const QUALITY = 0.9;

export class Live {
  #video;
  #socket;
  #size;
  #events;
  #canvas = document.createElement("canvas");
  #sent = new Map();
  #next = 0;
  #grabbing = false;
  #facts = null;
  #stopped = false;
  #answers = Promise.resolve();

  /**
   * Starts at once. `events`: frame({photo, labels, time, latency, facts}) for each answer, refused(text) for a frame that
   * was not answered, ended(text) once if the connection is lost.
   */
  constructor(video, socket, model, events) {
    this.#video = video;
    this.#socket = socket;
    this.#events = events;
    this.#size = model;
    socket.onopen = () => this.#wait();
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.#text(JSON.parse(data)) : this.#picture(data));
    socket.onclose = ({ reason }) => {
      if (!this.#stopped) this.#events.ended(reason);
      this.stop();
    };
  }

  /** Ends it. Nothing is reported any more. */
  stop() {
    this.#stopped = true;
    this.#socket.close();
    for (const { photo } of this.#sent.values()) photo.close();
    this.#sent.clear();
  }

  #wait() {
    if (this.#stopped) return;
    const next = (now, facts) => {
      this.#grab(facts?.mediaTime ?? this.#video.currentTime);
      this.#wait();
    };
    if (this.#video.requestVideoFrameCallback) this.#video.requestVideoFrameCallback(next);
    else requestAnimationFrame(next);
  }

  async #grab(time) {
    const { videoWidth: width, videoHeight: height } = this.#video;
    if (this.#stopped || this.#grabbing || this.#sent.size >= UNDER_WAY || !width) return;
    this.#grabbing = true;
    const began = performance.now();
    const photo = await createImageBitmap(this.#video);
    const scale = Math.min(1, Math.max(this.#size.width / width, this.#size.height / height, SMALLEST / Math.max(width, height)));
    [this.#canvas.width, this.#canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    this.#canvas.getContext("2d").drawImage(photo, 0, 0, this.#canvas.width, this.#canvas.height);
    const jpeg = await new Promise((done) => this.#canvas.toBlob(done, "image/jpeg", QUALITY));
    this.#grabbing = false;
    if (this.#stopped || !jpeg) return photo.close();
    this.#sent.set(this.#next++, { photo, time, began });
    this.#socket.send(jpeg);
  }

  #text(facts) {
    if (facts.error === undefined) {
      this.#facts = facts;
      return;
    }
    this.#take(facts.frame)?.photo.close();
    if (!this.#stopped) this.#events.refused([facts.error, facts.hint].filter(Boolean).join(" "));
  }

  #picture(data) {
    const facts = this.#facts;
    const sent = this.#take(facts.frame);
    // One after another: unpacking a PNG must not let a later frame overtake.
    if (sent) this.#answers = this.#answers.then(() => this.#show(sent, facts, data));
  }

  async #show({ photo, time, began }, facts, data) {
    const labels = await readGrey(new Uint8Array(data));
    if (this.#stopped) return photo.close();
    this.#events.frame({ photo, labels, time, latency: performance.now() - began, facts });
  }

  /** What was sent as this frame. The service has passed over all that were sent before it. */
  #take(number) {
    const sent = this.#sent.get(number);
    for (const [other, { photo }] of this.#sent) {
      if (other > number) continue;
      if (other < number) photo.close();
      this.#sent.delete(other);
    }
    return sent;
  }
}
