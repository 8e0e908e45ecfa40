
"use strict";
const facts = JSON.parse(document.body.dataset.facts);
const at = (id) => document.getElementById(id);
const megabytes = (bytes) => `${(bytes / 1e6).toPrecision(3)} MB`;
let asking = null;

function say(state, text) {
  document.body.dataset.state = state;
  at("status").textContent = text;
}

function show(found, file, milliseconds) {
  at("classes").replaceChildren(...found.classes.map(({ name, probability }) => {
    const row = document.createElement("li");
    const part = (kind, text) => {
      const made = document.createElement("span");
      made.className = kind;
      made.textContent = text;
      return made;
    };
    const bar = part("bar", "");
    bar.style.width = `${100 * probability}%`;
    row.append(bar, part("name", name), part("share", `${(100 * probability).toFixed(1)} %`));
    return row;
  }));
  const picture = at("picture");
  if (picture.src) URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  at("given").hidden = false;
  at("shown").hidden = !found.map;
  if (found.map) {
    at("map").src = found.map.image;
    at("map").alt = `The picture in gray, coloured where the model sees ${found.map.class}`;
    at("seen").textContent = found.map.class;
  }
  at("answer").hidden = false;
  say("answered", `${found.classes[0].name}, ${(100 * found.classes[0].probability).toFixed(1)} % (${milliseconds} ms)`);
}

async function reason(response) {
  try {
    return (await response.json()).error;
  } catch {
    return `the server answered ${response.status}`;
  }
}

async function ask(file) {
  if (asking) asking.abort();
  if (file.size > facts.most) {
    say("failed", `${file.name || "the picture"} has ${megabytes(file.size)}; at most ${megabytes(facts.most)} are taken`);
    return;
  }
  const mine = asking = new AbortController();
  const headers = { "content-type": file.type || "application/octet-stream" };
  if (facts.token) headers.authorization = `Bearer ${at("token").value.trim()}`;
  say("asking", "looking …");
  const started = performance.now();
  try {
    const response = await fetch(`predict?map=${facts.maps}`, { method: "POST", body: file, headers, signal: mine.signal });
    if (!response.ok) {
      if (response.status === 401) at("token").focus();
      say("failed", await reason(response));
      return;
    }
    show(await response.json(), file, Math.round(performance.now() - started));
  } catch (error) {
    if (mine === asking && error.name !== "AbortError") say("failed", "the server cannot be reached; is it still running?");
  }
}

function first(list) {
  const file = Array.from(list || [])[0];
  if (file) ask(file);
}

at("about").textContent = facts.model ? `Answered by ${facts.model}.` : "";
at("access").hidden = !facts.token;
at("access").addEventListener("submit", (event) => event.preventDefault());
at("picture").addEventListener("load", ({ target }) => target.classList.toggle("tiny", target.naturalWidth < 200));
at("picture").addEventListener("error", () => { at("given").hidden = true; }); // a format that only the server reads
if (facts.pictures) {
  at("file").addEventListener("change", ({ target }) => { first(target.files); target.value = ""; });
  addEventListener("paste", (event) => first(event.clipboardData && event.clipboardData.files));
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    first(event.dataTransfer.files);
  });
} else {
  at("drop").hidden = true;
  say("failed", "This model looks at arrays of channels that pictures do not have; it answers tensors only.");
}
