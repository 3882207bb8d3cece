// The page: connects its controls with the session, the view and the service.

import { areaTable } from "./csv.js";
import { save, stem } from "./download.js";
import { Figures } from "./figures.js";
import { Legend, percent } from "./legend.js";
import { shares } from "./labels.js";
import { cameras, firstFile } from "./media.js";
import { Service } from "./service.js";
import { Session } from "./session.js";
import { Transport } from "./transport.js";
import { View } from "./view.js";

const by = (id) => document.getElementById(id);
const parts = (...ids) => Object.fromEntries(ids.map((id) => [id, by(id)]));

const service = new Service();
let models = [];
let retry = null;

const view = new View(parts("frames", "photo", "beside", "view", "divider", "cross", "tip"), (place) => setSwipe(100 * place));
const legend = new Legend(by("legend"), by("absent"), () => view.hide(legend.hidden));
const figures = new Figures({ ...parts("latency", "fps", "engine", "queue", "size"), fpsRow: by("fps-row") });
const transport = new Transport({ bar: by("transport"), ...parts("play", "seek", "clock", "stop") }, () => session.close());
const session = new Session(service, guard, {
  opened: ({ name, video }) => {
    legend.reset();
    figures.reset();
    transport.attach(video);
    say(`Opening ${name} …`);
  },
  working: () => {
    say("Segmenting …");
    allowDownloads(false);
  },
  still: (result, latency, timing) => {
    figures.still(latency, timing, result.labels);
    show(result);
    say(summary(result));
    allowDownloads(true);
  },
  live: () => {
    figures.reset();
    say(`Live: ${session.source.name}. Pause it to read the confidence.`);
    allowDownloads(false);
  },
  frame: (result, latency, facts) => {
    figures.frame(latency, facts, result.labels);
    show(result);
    by("get-csv").disabled = false;
  },
  refused: (text) => showProblem(text),
  closed: () => {
    view.clear();
    transport.attach(null);
    for (const id of ["classes", "timing", "downloads", "camera-row"]) by(id).hidden = true;
    by("empty").hidden = false;
    hideProblem();
    say("");
  },
});

/** Runs an async function; shows what it throws, and offers to run `again`, by default the same function. */
async function guard(work, again = () => session.again()) {
  hideProblem();
  try {
    return await work();
  } catch (error) {
    if (error.name === "AbortError") return undefined;
    say("");
    retry = again;
    showProblem(error.message, !error.final && !error.wantsKey);
    if (error.wantsKey) askForKey();
    return undefined;
  }
}

function show(result) {
  by("empty").hidden = true;
  for (const id of ["classes", "timing", "downloads"]) by(id).hidden = false;
  view.show(result);
  by("view").setAttribute("aria-label", `${session.source.name}, segmented`);
  legend.update(result.counts, result.live);
  if (result.live) hideProblem();
}

function summary({ counts, classes }) {
  const all = shares(counts);
  const largest = [...classes].sort((a, b) => all[b.id] - all[a.id]).filter(({ id }) => counts[id]).slice(0, 3);
  return `${session.source.name}: ${largest.map(({ id, name }) => `${name} ${percent(all[id])}`).join(", ")}`;
}

function say(text) {
  by("status").textContent = text;
}

function showProblem(text, canRetry = false) {
  by("problem").hidden = false;
  by("problem-text").textContent = text;
  by("again").hidden = !canRetry;
}

function hideProblem() {
  if (!by("problem").hidden) by("problem").hidden = true;
}

function askForKey() {
  by("key-form").hidden = false;
  by("key").focus();
}

async function loadModels() {
  models = await service.models();
  by("key-form").hidden = true;
  by("model").replaceChildren(...models.map(({ name }) => new Option(name, name)));
  by("model-row").hidden = models.length === 1;
  choose(models.find(({ name }) => name === session.model?.name) ?? models[0]);
}

function choose(model) {
  by("model").value = model.name;
  session.model = model;
  legend.setClasses(model.classes);
  const { network, backend, precision, width, height } = model;
  by("model-facts").textContent = [network, backend, precision, `${width} × ${height}`].filter(Boolean).join(" · ");
}

/** Opens a source, with the models loaded first if the service would not give them before. */
function open(start) {
  const both = async () => {
    if (!models.length) await loadModels();
    return start();
  };
  return guard(both, both);
}

async function openCamera(id) {
  const used = await session.openCamera(id);
  const all = await cameras();
  by("camera").replaceChildren(...all.map((each) => new Option(each.name, each.id, false, each.id === used)));
  by("camera-row").hidden = all.length < 2 || !session.source;
}

function setSwipe(value) {
  by("swipe").value = value;
  by("swipe-value").textContent = `${Math.round(value)} %`;
  view.swipe = value / 100;
}

function allowDownloads(allowed) {
  for (const id of ["get-labels", "get-overlay", "get-polygons"]) by(id).disabled = !allowed;
  by("get-csv").disabled = session.areas.size === 0;
  const video = session.source?.video;
  const frame = allowed ? "" : "Pause to save a frame. ";
  by("downloads-note").textContent = video ? `${frame}The CSV has a row for each frame and class so far.` : "";
}

function openFirst(transfer) {
  const file = firstFile(transfer);
  if (file) open(() => session.openFile(file));
  return Boolean(file);
}

by("choose").addEventListener("click", () => by("file").click());
by("file").addEventListener("change", ({ target }) => {
  openFirst(target);
  target.value = ""; // so that the same file can be chosen again
});
by("webcam").addEventListener("click", () => open(() => openCamera(null)));
by("camera").addEventListener("change", ({ target }) => open(() => openCamera(target.value)));
by("model").addEventListener("change", ({ target }) => {
  choose(models[target.selectedIndex]);
  guard(() => session.again());
});
by("again").addEventListener("click", () => guard(retry, retry));
by("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const waiting = retry; // what the service refused for want of a key
  const work = async () => {
    service.setKey(by("key").value.trim());
    await loadModels();
    by("key").value = "";
    return waiting();
  };
  guard(work, waiting);
});

addEventListener("paste", (event) => openFirst(event.clipboardData) && event.preventDefault());
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => !event.relatedTarget && document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  openFirst(event.dataTransfer);
});

for (const radio of document.querySelectorAll("input[name=mode]")) {
  radio.addEventListener("change", () => {
    view.mode = radio.value;
    by("swipe-row").hidden = radio.value !== "swipe";
  });
}
by("opacity").addEventListener("input", ({ target }) => {
  by("opacity-value").textContent = `${target.value} %`;
  view.opacity = target.value / 100;
});
by("swipe").addEventListener("input", ({ target }) => setSwipe(target.valueAsNumber));
by("show-all").addEventListener("click", () => legend.showAll());
by("hide-all").addEventListener("click", () => legend.hideAll());

/** Saves what `make` gives, under the name of what is open. */
function download(id, ending, type, make) {
  by(id).addEventListener("click", () => {
    const { still, source } = session;
    const run = async () => save(await make(still), `${stem(source.name, still?.time ?? null)}${ending}`, type);
    guard(run, run);
  });
}

download("get-labels", "_labels.png", "image/png", (still) => still.labelsPng);
download("get-overlay", "_overlay.png", "image/png", ({ picture }) =>
  service.overlay(session.model, picture, by("opacity").value / 100, legend.hidden),
);
download("get-polygons", "_polygons.geojson", "application/geo+json", async ({ picture, time }) => {
  const { name } = session.source;
  const collection = await service.polygons(session.model, picture);
  for (const feature of collection.features) Object.assign(feature.properties, { frame: name }, time === null ? {} : { time });
  return `${JSON.stringify(collection)}\n`;
});
by("get-csv").addEventListener("click", () => {
  const frames = [...session.areas.values()].sort((a, b) => a.time - b.time);
  save(areaTable(frames, session.model.classes), `${stem(session.source.name, null)}_areas.csv`, "text/csv");
});

by("opacity").value = 50; // browsers keep a form's values over a reload
setSwipe(50);
document.querySelector("input[name=mode][value=over]").checked = true;
view.mode = "over";
guard(loadModels, loadModels);
