// The buttons under a video: play and pause, the position, stop.

export class Transport {
  #elements;
  #video = null;

  /** `elements`: bar, play, seek, clock, stop. */
  constructor(elements, onStop) {
    this.#elements = elements;
    elements.play.addEventListener("click", () => this.#toggle());
    elements.stop.addEventListener("click", onStop);
    elements.seek.addEventListener("input", () => this.#video && (this.#video.currentTime = elements.seek.valueAsNumber));
  }

  /** Belongs to this video from now on; null: to none. A camera has no position. */
  attach(video) {
    this.#video = video;
    this.#elements.bar.hidden = !video;
    for (const name of ["play", "pause", "timeupdate", "durationchange", "seeked"]) video?.addEventListener(name, () => this.#show(video));
    if (video) this.#show(video);
  }

  #toggle() {
    if (this.#video.paused) this.#video.play();
    else this.#video.pause();
  }

  #show(video) {
    if (video !== this.#video) return;
    const { play, seek, clock } = this.#elements;
    const long = Number.isFinite(video.duration);
    play.textContent = video.paused ? "Play" : "Pause";
    seek.hidden = clock.hidden = !long;
    if (!long) return;
    seek.max = video.duration;
    seek.value = video.currentTime;
    clock.textContent = `${minutes(video.currentTime)} / ${minutes(video.duration)}`;
    seek.setAttribute("aria-valuetext", clock.textContent.replace("/", "of"));
  }
}

function minutes(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}
