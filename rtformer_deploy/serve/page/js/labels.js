// What a label map says: how many pixels each class has, and its colours.

/** Labels (one byte a pixel) -> pixels of each class. Ids that are no class's (255, "ignored") are counted nowhere. */
export function countClasses(values, classes) {
  const counts = new Uint32Array(256);
  for (let index = 0; index < values.length; index++) counts[values[index]]++;
  return counts.subarray(0, classes);
}

/** Counts -> each class's share of the pixels that have a class. */
export function shares(counts) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  return Array.from(counts, (count) => (total ? count / total : 0));
}

/** Labels -> their picture: a class's colour, or nothing for hidden classes and for ids that are no class's. */
export function paint(labels, classes, hidden) {
  const image = new ImageData(labels.width, labels.height);
  const colours = new Uint32Array(256);
  const bytes = new Uint8Array(colours.buffer);
  for (const { id, colour } of classes) if (!hidden.has(id)) bytes.set([...colour, 255], 4 * id);
  const pixels = new Uint32Array(image.data.buffer);
  for (let index = 0; index < pixels.length; index++) pixels[index] = colours[labels.values[index]];
  return image;
}
