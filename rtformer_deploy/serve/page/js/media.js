// Where pictures come from: files, videos, cameras.

/** A file -> "video" or "picture". What is no video is left to the service: it reads more kinds of pictures than browsers do. */
export function kindOf(file) {
  return file.type.startsWith("video/") ? "video" : "picture";
}

/** The first file of a drop or a paste; null if there is none. */
export function firstFile(transfer) {
  return transfer?.files?.[0] ?? null;
}

/** Plays a video file in `video`. Rejects if the browser cannot. */
export async function openVideo(video, file) {
  video.src = URL.createObjectURL(file);
  video.muted = true;
  try {
    await video.play();
  } catch (error) {
    if (error.name === "AbortError") throw error; // another source was opened meanwhile
    throw new Error(`This browser cannot play ${file.name}.`);
  }
}

/** Plays a camera in `video`, the one of that id or any. Rejects with the reason in words. */
export async function openCamera(video, id) {
  if (!navigator.mediaDevices) throw new Error("Browsers give a page the camera only over HTTPS or on localhost.");
  let stream;
  try {
    const which = id ? { deviceId: { exact: id } } : { facingMode: "environment" };
    stream = await navigator.mediaDevices.getUserMedia({ video: which, audio: false });
  } catch (error) {
    throw new Error(cameraProblem(error));
  }
  video.srcObject = stream;
  await video.play();
  return stream.getVideoTracks()[0];
}

/** The cameras there are: [{id, name}]. Names are known only once a camera was allowed. */
export async function cameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices
    .filter(({ kind }) => kind === "videoinput")
    .map(({ deviceId, label }, index) => ({ id: deviceId, name: label || `Camera ${index + 1}` }));
}

/** Ends whatever `video` plays, and lets the camera go. */
export function closeVideo(video) {
  video.pause();
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
  if (video.src) URL.revokeObjectURL(video.src);
  video.removeAttribute("src");
  video.load();
}

/** The frame that a video shows -> its pixels as a PNG's Blob. */
export function grabPng(video) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((done, fail) => canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("The frame cannot be read."))), "image/png"));
}

/**
 * A picture's Blob -> its ImageBitmap, with the very values that the network gets: no colour profile is applied. Null for one that
 * `mayBeClear` and is: a browser lets through what lies under it, the service shows the colours as if nothing were clear.
 */
export async function readPicture(picture, mayBeClear) {
  const bitmap = await createImageBitmap(picture, { colorSpaceConversion: "none" });
  if (!mayBeClear || picture.type === "image/jpeg" || isOpaque(bitmap)) return bitmap;
  bitmap.close();
  return null;
}

function isOpaque(bitmap) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const bytes = context.getImageData(0, 0, canvas.width, canvas.height).data;
  for (let index = 3; index < bytes.length; index += 4) if (bytes[index] !== 255) return false;
  return true;
}

function cameraProblem({ name, message }) {
  if (name === "NotAllowedError") return "The browser was told not to give this page the camera.";
  if (name === "NotFoundError" || name === "OverconstrainedError") return "There is no camera here.";
  if (name === "NotReadableError") return "The camera is in use by another program.";
  return `The camera cannot be opened: ${message}`;
}
