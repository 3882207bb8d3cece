// Class areas as CSV, character for character as `rtformer-deploy segment` writes them.

const COLUMNS = "frame,time,class_id,class,pixels,share\n";

/** Frames {name, time, counts} (time in seconds, null for a picture) and the classes -> the text of a CSV file. */
export function areaTable(frames, classes) {
  return COLUMNS + frames.map((frame) => rows(frame, classes)).join("");
}

function rows({ name, time, counts }, classes) {
  const when = time === null ? "" : time.toFixed(6);
  const total = counts.reduce((sum, count) => sum + count, 0);
  const line = ({ id, name: label }) => [quoted(name), when, id, quoted(label), counts[id], sixDigits(counts[id], total)].join(",");
  return classes.map((each) => `${line(each)}\n`).join("");
}

/** count / total with six decimals. What lies exactly between two goes to the even one, as in Python; toFixed would go up. */
function sixDigits(count, total) {
  if (!total) return "0.000000";
  const rest = (count * 1e6) % total;
  const below = (count * 1e6 - rest) / total;
  const up = 2 * rest > total || (2 * rest === total && below % 2 === 1);
  return ((below + up) / 1e6).toFixed(6);
}

function quoted(text) {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
