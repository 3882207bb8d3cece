// Reads the service's 8-bit grey PNGs byte for byte. A canvas would not do: browsers may change the values that are read back from it.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

/** The bytes of an 8-bit grey PNG -> {width, height, values}, one byte a pixel. Throws an Error for any other file. */
export async function readGrey(bytes) {
  if (!SIGNATURE.every((value, index) => bytes[index] === value)) throw new Error("The service's answer is not a PNG.");
  const parts = [];
  let header = null;
  for (const [name, body] of chunks(bytes)) {
    if (name === "IHDR") header = readHeader(body);
    if (name === "IDAT") parts.push(body);
  }
  if (!header) throw new Error("The service's PNG has no header.");
  const inflated = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const rows = new Uint8Array(await new Response(inflated).arrayBuffer());
  const { width, height } = header;
  if (rows.length !== (width + 1) * height) throw new Error("The service's PNG is cut off.");
  return { width, height, values: unfilter(rows, width, height) };
}

function* chunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let start = SIGNATURE.length;
  while (start + 12 <= bytes.length) {
    const length = view.getUint32(start);
    yield [String.fromCharCode(...bytes.subarray(start + 4, start + 8)), bytes.subarray(start + 8, start + 8 + length)];
    start += 12 + length;
  }
}

function readHeader(body) {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const [depth, colour, , , interlace] = body.subarray(8);
  if (depth !== 8 || colour !== 0 || interlace !== 0) throw new Error("The service's PNG is not 8-bit grey.");
  return { width: view.getUint32(0), height: view.getUint32(4) };
}

/** Rows that begin with their filter's number -> the pixels. */
function unfilter(rows, width, height) {
  const values = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const source = y * (width + 1) + 1;
    const target = y * width;
    const filter = rows[source - 1];
    if (filter === 0) {
      values.set(rows.subarray(source, source + width), target);
      continue;
    }
    for (let x = 0; x < width; x++) {
      const left = x ? values[target + x - 1] : 0;
      const up = y ? values[target + x - width] : 0;
      const corner = x && y ? values[target + x - width - 1] : 0;
      values[target + x] = rows[source + x] + predict(filter, left, up, corner);
    }
  }
  return values;
}

function predict(filter, left, up, corner) {
  if (filter === 1) return left;
  if (filter === 2) return up;
  if (filter === 3) return (left + up) >> 1;
  const guess = left + up - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}
