// Sends the chosen picture and shows its overlay.
const byId = (id) => document.getElementById(id);
const picture = byId("picture");
const key = byId("key");

const headers = () => (key.value ? { Authorization: `Bearer ${key.value}` } : {});

async function address() {
  const answer = await fetch("/v1/models", { headers: headers() });
  if (!answer.ok) throw await refusal(answer);
  const models = await answer.json();
  return models.length === 1 ? "/v1/segment" : `/v1/segment/${encodeURIComponent(models[0].name)}`;
}

async function refusal(answer) {
  byId("key-row").hidden = answer.status !== 401 && !key.value;
  const { error, hint } = await answer.json();
  return new Error([error, hint].filter(Boolean).join(" "));
}

async function segment() {
  const file = picture.files[0];
  if (!file) return;
  byId("status").textContent = "Working …";
  try {
    const body = new Blob([file], { type: "application/octet-stream" });
    const answer = await fetch(`${await address()}?output=overlay&legend=true`, { method: "POST", body, headers: headers() });
    if (!answer.ok) throw await refusal(answer);
    const overlay = byId("overlay");
    URL.revokeObjectURL(overlay.src);
    overlay.src = URL.createObjectURL(await answer.blob());
    overlay.hidden = false;
    byId("status").textContent = "";
  } catch (error) {
    byId("status").textContent = error.message;
  }
}

picture.addEventListener("change", segment);
key.addEventListener("change", segment);
