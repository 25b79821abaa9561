// The page talks to the endpoint that served it, and to nothing else.
const $ = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const words = (text) => text.replaceAll("_", " ");
// Nothing is certain: "100 %" and "0 %" are not said.
const percent = (value) => (value > 0.995 ? "> 99 %" : value < 0.005 ? "< 1 %" : `${Math.round(value * 100)} %`);
// What was asked is kept with its answer: heat maps and downloads are about that, whatever the form says by then.
const state = { files: [], drawn: null, answer: null, fields: [], shown: 0, mapped: null, asked: 0, mapping: 0, calibrated: [], most: 64 };
// Diseases described in words, by name; kept in this tab for the studies that follow.
const diseases = new Map(JSON.parse(sessionStorage.getItem("diseases") || "[]"));

// A key in the fragment of the address never leaves the browser; it is taken out of sight at once.
const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.has("key")) {
  sessionStorage.setItem("key", fragment.get("key"));
  history.replaceState(null, "", location.pathname);
}

async function call(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...(options.headers || {}), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The endpoint cannot be reached. Is it still running?");
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => null);
  $("key-form").hidden = $("key-form").hidden && ![401, 403].includes(answer.status);
  if ([401, 403].includes(answer.status)) $("key").focus();
  const error = body && body.error;
  throw new Error(error ? `${error.message} ${error.fix}` : `The endpoint answered with status ${answer.status}.`);
}

function fieldsOfForm() {
  const asked = split($("labels").value, ",");
  // Of a description alone the endpoint tells that alone; whoever reads a study wants the known findings beside it.
  const labels = asked.length || !diseases.size ? asked : state.calibrated.slice(0, Math.max(0, state.most - diseases.size));
  const fields = labels.map((label) => ["labels", label]);
  for (const [name, phrases] of diseases) fields.push(["described", `${name}: ${phrases}`]);
  if ($("point").value) fields.push(["operating_point", $("point").value]);
  return [...fields, ["attributes", "3"]];
}

function request(fields, extra) {
  const data = new FormData();
  for (const file of state.files) data.append("file", file, "image");
  for (const [field, value] of [...fields, ...Object.entries(extra)]) data.append(field, value);
  return data;
}

const split = (text, mark) => text.split(mark).map((part) => part.trim()).filter(Boolean);

async function diagnose() {
  const [named, looks] = [$("name").value.trim(), split($("phrases").value, ";").length];
  if (Boolean(named) !== Boolean(looks)) {
    say(named ? "Say in a phrase or two what the new disease looks like." : "Give the new disease a name.");
    return $(named ? "phrases" : "name").focus();
  }
  if (named) keepDisease();
  if (!state.files.length) return say("Choose an image or a phantom first.");
  const number = ++state.asked, fields = fieldsOfForm();
  Object.assign(state, { answer: null, mapped: null, mapping: state.mapping + 1 });
  show();
  say("Diagnosing …");
  $("findings").setAttribute("aria-busy", "true");
  try {
    const answer = await (await call("v1/diagnose", { method: "POST", body: request(fields, { preview: "true" }) })).json();
    if (number !== state.asked) return; // another question was asked since
    Object.assign(state, { answer, fields, shown: 0, mapped: null });
    show();
    const found = answer.findings.filter((finding) => finding.decision === "present").length;
    say(answer.abstentions.length ? "Nothing is decided about this study; see below why."
      : `${answer.findings.length} findings asked for, ${found} called present.`);
  } catch (error) {
    if (number !== state.asked) return;
    Object.assign(state, { answer: null, mapped: null });
    show();
    say("");
    $("notes").replaceChildren(make("p", { className: "error", role: "alert", textContent: error.message }));
  } finally {
    if (number === state.asked) $("findings").removeAttribute("aria-busy");
  }
}

function keepDisease() {
  diseases.set($("name").value.trim().replaceAll(":", " "), split($("phrases").value, ";").join("; "));
  $("name").value = $("phrases").value = "";
  showDiseases();
}

function showDiseases() {
  sessionStorage.setItem("diseases", JSON.stringify([...diseases]));
  $("diseases").replaceChildren(...[...diseases].map(([name, phrases]) => {
    const button = make("button", { type: "button", textContent: "Remove" });
    button.setAttribute("aria-label", `Remove ${name}`);
    button.addEventListener("click", () => {
      diseases.delete(name);
      showDiseases();
      $("name").focus();
      say(`${name} is not asked for any more.`);
    });
    return make("li", {}, make("span", { textContent: `${name}: ${phrases}` }), button);
  }));
}

const say = (text) => { $("status").textContent = text; };

function show() {
  const { answer } = state;
  $("legend").hidden = $("downloads").hidden = !answer;
  $("findings").replaceChildren();
  $("notes").replaceChildren();
  showImage();
  if (!answer) return;
  if (state.drawn) $("notes").append(make("p", { className: "note", textContent: `Drawn in this phantom: ${state.drawn}.` }));
  // What the model was trained on stands above already.
  const warnings = answer.warnings.filter((warning) => warning.code !== "synthetic_training_data");
  for (const warning of warnings) $("notes").append(make("p", { className: "note", textContent: warning.message }));
  const order = { present: 0, abstained: 1, absent: 2 };
  const findings = [...answer.findings].sort((a, b) => order[a.decision] - order[b.decision] || b.probability - a.probability);
  $("findings").append(...findings.map(card));
  $("foot").textContent = `Model ${answer.model.fingerprint}, labels ${answer.model.label_set}, code ${answer.model.code_version}, `
    + `request ${answer.request_id}; ${answer.intended_use}.`;
}

function card(finding) {
  const point = finding.operating_point;
  const undecided = { uncertain: "too uncertain", view: "not to be seen in this view", study: "not decided" }[finding.abstention];
  const item = make("li", { className: "finding" });
  item.append(make("div", { className: "head" },
    make("span", { className: "name", textContent: words(finding.label) }),
    make("span", { className: "value", textContent: percent(finding.probability) }),
    make("span", { className: `decision ${finding.decision}`, textContent: undecided || finding.decision })));
  item.append(bar(finding, point));
  const parts = [["severity", finding.severity], ["side", finding.laterality], ["site", finding.site]]
    .filter(([, slot]) => slot).map(([name, slot]) => choice(name, slot));
  if (!finding.calibrated) parts.push(finding.calibration === "overall" ? "calibrated over all findings only" : "not calibrated");
  if (parts.length) item.append(make("p", { className: "details" }, ...parts.flatMap((part, at) => at ? [" · ", part] : [part])));
  const button = make("button", { type: "button", textContent: "Heat map" });
  button.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-label", `Heat map of ${words(finding.label)}`);
  button.addEventListener("click", () => heatMap(finding, button));
  item.append(make("div", { className: "foot" }, why(finding), button));
  return item;
}

function choice(name, slot) {
  // What does not outweigh all others together is a guess, and looks like one.
  if (slot.share >= 0.5) return `${name}: ${words(slot.value)} (${percent(slot.share)})`;
  return make("span", { className: "unsure", textContent: `${name}: unsure, perhaps ${words(slot.value)} (${percent(slot.share)}, ${slot.choices} choices)` });
}

function bar(finding, point) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const low = finding.probability_low, high = finding.probability_high;
  const interval = low === null ? "" : `, 95 % interval ${percent(low)} to ${percent(high)}`;
  svg.setAttribute("class", `bar ${finding.decision}`);
  svg.setAttribute("viewBox", "0 0 100 10");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Probability ${percent(finding.probability)}${interval}; threshold ${percent(point.threshold)}`);
  const draw = (tag, attributes) => {
    const shape = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    shape.setAttribute("vector-effect", "non-scaling-stroke");
    svg.append(shape);
  };
  draw("rect", { class: "track", x: 0, y: 2, width: 100, height: 6 });
  draw("rect", { class: "fill", x: 0, y: 2, width: finding.probability * 100, height: 6 });
  if (low !== null) draw("line", { class: "range", x1: low * 100, x2: high * 100, y1: 5, y2: 5 });
  draw("line", { class: "tick", x1: point.threshold * 100, x2: point.threshold * 100, y1: 0, y2: 10 });
  return svg;
}

function why(finding) {
  const point = finding.operating_point;
  const lines = finding.attributes.map((match) => `${match.text} (${words(match.axis)}, ${match.score.toFixed(2)})`);
  const known = point.sensitivity === null ? "" : `: sensitivity ${percent(point.sensitivity)}, specificity `
    + `${percent(point.specificity)} on ${point.positives} + ${point.negatives} validation images, on which it was chosen`;
  return make("details", {}, make("summary", { textContent: "Why" }),
    make("ul", {}, ...lines.map((text) => make("li", { textContent: text })),
      make("li", { textContent: `Scores: ${finding.positive_score.toFixed(2)} for, ${finding.negative_score.toFixed(2)} against` }),
      make("li", { textContent: `Threshold ${point.threshold.toFixed(2)} (${point.rule})${known}` })));
}

async function heatMap(finding, button) {
  const on = button.getAttribute("aria-pressed") !== "true", number = ++state.mapping;
  for (const other of document.querySelectorAll('.finding button[aria-pressed="true"]')) other.setAttribute("aria-pressed", "false");
  state.mapped = null;
  drawMap();
  if (!on) return say("");
  button.disabled = true;
  say(`Computing where the evidence for ${words(finding.label)} lies …`);
  const { answer } = state;
  try {
    if (!finding.heat_map) {
      const own = finding.category === null
        && state.fields.find(([field, text]) => field === "described" && text.startsWith(`${finding.label}:`));
      const body = request([own || ["labels", finding.label]], { heat_maps: "all" });
      const found = await (await call("v1/diagnose", { method: "POST", body })).json();
      finding.heat_map = found.findings[0].heat_map;
    }
    if (state.answer !== answer || number !== state.mapping) return; // something else was asked for since
    state.mapped = finding;
    state.shown = finding.heat_map.image;
    button.setAttribute("aria-pressed", "true");
    showImage();
    say(finding.heat_map.peak > 0 ? `Shown: where the evidence for ${words(finding.label)} lies.`
      : `Nothing in the image speaks for ${words(finding.label)}.`);
  } catch (error) {
    say(error.message);
  } finally {
    button.disabled = false;
  }
}

function showImage() {
  const { answer, shown } = state;
  $("viewer").hidden = !answer;
  $("views").replaceChildren();
  $("facts").replaceChildren();
  if (!answer) return;
  const facts = answer.images[shown];
  $("image").src = `data:image/png;base64,${facts.preview}`;
  $("image").alt = `Image ${shown + 1} of the study, ${facts.view} view`;
  $("caption").textContent = state.mapped ? `Evidence for ${words(state.mapped.label)}: the more orange, the more it speaks for it.` : "";
  if (answer.images.length > 1) {
    $("views").append(...answer.images.map((image, at) => {
      const button = make("button", { type: "button", textContent: `${at + 1}: ${image.view}` });
      button.setAttribute("aria-pressed", String(at === shown));
      button.addEventListener("click", () => { state.shown = at; showImage(); });
      return button;
    }));
  }
  const grey = { window: "window of the file", voi_lut: "table of the file", full_range: "full range" }[facts.grey_values];
  const rows = [["View", facts.view], ["Size", `${facts.columns} × ${facts.rows}, ${facts.bits} bits`],
    ["Grey values", facts.inverted ? `${grey}, inverted` : grey]];
  if (answer.unfamiliarity !== null) rows.push(["Unfamiliarity", `farther out than ${percent(answer.unfamiliarity)} of reference images`]);
  for (const [name, value] of rows) $("facts").append(make("dt", { textContent: name }), make("dd", { textContent: value }));
}

async function drawMap() {
  const canvas = $("map"), finding = state.mapped;
  const map = finding && finding.heat_map;
  canvas.width = canvas.height = 0;
  $("strength").disabled = true;
  if (!map || map.image !== state.shown || !$("image").naturalWidth) return;
  const grey = await createImageBitmap(await (await fetch(`data:image/png;base64,${map.png}`)).blob());
  if (state.mapped !== finding) return;
  canvas.width = map.width;
  canvas.height = map.height;
  const context = canvas.getContext("2d");
  context.drawImage(grey, 0, 0);
  const pixels = context.getImageData(0, 0, map.width, map.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const value = pixels.data[at];
    pixels.data.set([255, 200 - Math.round(value * 0.45), 30, Math.round(value * 0.62)], at);
  }
  context.putImageData(pixels, 0, 0);
  fitMap();
}

function fitMap() {
  const { style } = $("map"), image = $("image");
  [style.width, style.height, style.opacity] = [`${image.clientWidth}px`, `${image.clientHeight}px`, $("strength").value / 100];
  $("strength").disabled = !$("map").width;
  $("stressed").textContent = `${$("strength").value} %`;
}

function zoom() {
  const stage = $("stage"), image = $("image"), share = $("zoom").value / 100;
  const [across, down] = [(stage.scrollLeft + stage.clientWidth / 2) / stage.scrollWidth, (stage.scrollTop + stage.clientHeight / 2) / stage.scrollHeight];
  stage.classList.remove("zoomed");
  image.style.width = "";
  if (share > 1) {
    const fit = image.clientWidth;
    stage.style.height = `${stage.clientHeight}px`; // the image grows within its place, not the page
    stage.classList.add("zoomed");
    image.style.width = `${fit * share}px`;
  } else stage.style.height = "";
  stage.scrollTo(across * stage.scrollWidth - stage.clientWidth / 2, down * stage.scrollHeight - stage.clientHeight / 2);
  $("zoomed").textContent = `${$("zoom").value} %`;
  fitMap();
}

function drag(event) {
  if (event.pointerType !== "mouse" || event.button || !$("stage").classList.contains("zoomed")) return;
  const stage = $("stage"), [x, y] = [event.clientX + stage.scrollLeft, event.clientY + stage.scrollTop];
  stage.setPointerCapture(event.pointerId);
  const move = (now) => stage.scrollTo(x - now.clientX, y - now.clientY);
  stage.addEventListener("pointermove", move);
  stage.addEventListener("pointerup", () => stage.removeEventListener("pointermove", move), { once: true });
}

function take(files, drawn = null) {
  if (!files.length) return;
  Object.assign(state, { files: [...files], drawn });
  $("zoom").value = 100;
  diagnose();
}

function download(name, type, content) {
  const link = make("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function downloads(formats) {
  $("downloads").append(...formats.map(({ title, accept, file }) => {
    const button = make("button", { type: "button", textContent: `Download ${title}` });
    button.addEventListener("click", async () => {
      try {
        const body = request(state.fields, { heat_maps: "present" });
        const answer = await call("v1/diagnose", { method: "POST", body, headers: { Accept: accept } });
        download(file, accept, await answer.blob());
        say(`${title} was downloaded.`);
      } catch (error) {
        say(error.message);
      }
    });
    return button;
  }));
}

async function start() {
  try {
    const { samples, formats } = await (await call("page.json")).json();
    downloads(formats);
    $("samples").append(...samples.map(({ name, path }) => {
      const button = make("button", { type: "button", textContent: name });
      button.addEventListener("click", async () => {
        try {
          const answer = await call(path);
          take([await answer.blob()], answer.headers.get("X-Drawn") || "nothing");
        } catch (error) {
          say(error.message);
        }
      });
      return button;
    }));
    await about();
  } catch (error) {
    $("model").textContent = error.message;
  }
}

async function about() {
  const card = await (await call("v1/model")).json();
  $("model").textContent = `Zero-shot findings of chest radiographs. Model ${card.fingerprint}: image encoder ${card.vision}, text encoder ${card.text}, `
    + `${card.image_size} px, ${card.calibrated_categories.length} calibrated findings.`;
  $("training").textContent = card.training_data.startsWith("synthetic")
    ? "; trained on synthetic images alone, so its answers are worthless for patients" : "";
  const { labels, max_labels: most } = await (await call("v1/labels")).json();
  Object.assign(state, { calibrated: card.calibrated_categories, most });
  $("known").replaceChildren(...labels.map((label) => make("option", { value: label.label })));
  $("key-form").hidden = true;
}

$("files").addEventListener("change", () => { take($("files").files); $("files").value = ""; });
$("ask").addEventListener("submit", (event) => { event.preventDefault(); diagnose(); });
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key").value.trim());
  $("key").value = "";
  about().catch((error) => { $("model").textContent = error.message; });
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
$("image").addEventListener("load", () => { zoom(); drawMap(); });
$("zoom").addEventListener("input", zoom);
$("strength").addEventListener("input", fitMap);
$("stage").addEventListener("pointerdown", drag);
addEventListener("resize", () => { $("stage").style.height = ""; zoom(); });
showDiseases();
start();
