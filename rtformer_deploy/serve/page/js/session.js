// One picture, video or camera after another: gets it segmented and tells the page. Whatever belongs to an earlier one is dropped.

import { countClasses } from "./labels.js";
import { Live } from "./live.js";
import { closeVideo, grabPng, kindOf, openCamera, openVideo, readPicture } from "./media.js";

export class Session {
  model = null;
  source = null; // {name, video}: the video is null for a picture
  still = null; // {picture, time, labelsPng}: the picture, or the frame at which a video stands, once it is segmented
  areas = new Map(); // time -> {name, time, counts}, for every frame so far
  #service;
  #events;
  #abort = new AbortController();
  #live = null;
  #guard;

  /**
   * `events`: opened(source), working(), still(result, latency, timing), live(), frame(result, latency, facts), refused(text),
   * closed(). `guard` runs an async function and shows what it throws.
   */
  constructor(service, guard, events) {
    this.#service = service;
    this.#guard = guard;
    this.#events = events;
  }

  /** Opens a picture or a video. */
  openFile(file) {
    if (kindOf(file) === "video") return this.#openVideo(file.name, (video) => openVideo(video, file));
    this.close();
    this.#begin({ name: file.name, video: null });
    return this.#segment(file, null);
  }

  /** Opens a camera; gives its id. */
  async openCamera(id) {
    let opened = null;
    await this.#openVideo("webcam", async (video) => {
      opened = await openCamera(video, id);
    });
    return opened?.getSettings().deviceId;
  }

  /** Segments again what is there, with the model that is chosen now. */
  again() {
    if (!this.source) return undefined;
    this.areas.clear();
    const { video } = this.source;
    if (video && !video.paused) return this.#play();
    return this.still ? this.#segment(this.still.picture, this.still.time) : this.#freeze();
  }

  close() {
    this.#halt();
    const video = this.source?.video;
    this.source = this.still = null;
    this.areas.clear();
    if (video) {
      closeVideo(video);
      video.remove();
    }
    this.#events.closed();
  }

  #begin(source) {
    this.source = source;
    this.#events.opened(source);
  }

  async #openVideo(name, open) {
    this.close();
    const video = document.createElement("video");
    video.muted = video.playsInline = true;
    document.getElementById("player").append(video);
    this.#begin({ name, video });
    try {
      await open(video);
    } catch (error) {
      if (this.source?.video !== video) return; // another source was opened meanwhile
      this.close();
      throw error;
    }
    if (this.source?.video !== video) return closeVideo(video);
    video.addEventListener("play", () => this.#ours(video) && this.#play());
    video.addEventListener("pause", () => this.#ours(video) && this.#guard(() => this.#freeze()));
    video.addEventListener("seeked", () => this.#ours(video) && video.paused && this.#guard(() => this.#freeze()));
    this.#play();
  }

  #ours(video) {
    return this.source?.video === video;
  }

  #halt() {
    this.#abort.abort();
    this.#abort = new AbortController();
    this.#live?.stop();
    this.#live = null;
  }

  #play() {
    this.#halt();
    this.still = null;
    this.#events.live();
    const { classes } = this.model;
    this.#live = new Live(this.source.video, this.#service.stream(this.model), this.model, {
      frame: ({ photo, labels, time, latency, facts }) => {
        const counts = this.#count(labels, classes, time);
        this.#events.frame({ photo, labels, confidence: null, classes, counts, live: true }, latency, facts);
      },
      refused: this.#events.refused,
      ended: (reason) => this.#guard(() => this.#lost(reason)),
    });
  }

  /** Says why the stream ended. A browser does not tell why a WebSocket was refused, so the service is asked. */
  async #lost(reason) {
    await this.#service.models();
    throw new Error(reason || "The stream to the service was lost.");
  }

  async #freeze() {
    this.#halt();
    const { video } = this.source;
    const picture = await grabPng(video);
    if (this.#ours(video) && video.paused) await this.#segment(picture, video.currentTime);
  }

  async #segment(picture, time) {
    this.#halt();
    const { signal } = this.#abort;
    const { model } = this;
    this.still = { picture, time, labelsPng: null };
    this.#events.working();
    const began = performance.now();
    const own = readPicture(picture, time === null).catch(() => null);
    const { labels, confidence, labelsPng, timing } = await this.#service.segment(model, picture, signal);
    const latency = performance.now() - began;
    const photo = await this.#photo(await own, labels, picture, signal);
    if (signal.aborted) return photo.close();
    this.still.labelsPng = labelsPng;
    const counts = this.#count(labels, model.classes, time);
    this.#events.still({ photo, labels, confidence, classes: model.classes, counts, live: false }, latency, timing);
  }

  /** The photograph as the browser reads it, or as the service does if the browser reads it otherwise or not at all. */
  async #photo(own, labels, picture, signal) {
    if (own && own.width === labels.width && own.height === labels.height) return own;
    own?.close();
    return createImageBitmap(await this.#service.overlay(this.model, picture, 0, [], signal));
  }

  #count(labels, classes, time) {
    const counts = countClasses(labels.values, classes.length);
    this.areas.set(time, { name: this.source.name, time, counts });
    return counts;
  }
}
