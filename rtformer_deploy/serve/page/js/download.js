// Hands files to the browser to save.

/** Saves content (a Blob, bytes or text) under a name. */
export function save(content, name, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser may still be reading it
}

/** A file's name without its suffix, for a video's frame with its time: "clip.mp4", 3.2 -> "clip_3.200s". */
export function stem(name, time) {
  const bare = name.replace(/\.[^.]*$/, "") || name;
  return time === null ? bare : `${bare}_${time.toFixed(3)}s`;
}
