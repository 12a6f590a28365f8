// Frame viewer: one picture for marks, or two with a divider; with frame steps, a timeline and playback.
// It manages its own elements; `props.value` holds the data to display, and `trigger` sends events to the server.
const part = (name) => element.querySelector("." + name);
const view = part("view"), picture = part("picture"), over = part("over"), marks = part("marks"), bar = part("bar");
const range = part("range"), count = part("count"), play = part("play"), divider = part("divider"), tools = part("tools");
const voice = part("voice"), sound = part("sound");
const stats = element.querySelector(".viewer").dataset; // number of received and drawn pictures, and the time of the last response
let sent = 0, tool = "point", drag = null, cross = null, playing = null, wanted = 0;
let audible = null; // whether sound is on; null until the first press of Play or Mute, as autoplay is mute
let autoplay = false; // whether to start playback once the viewer is visible
let dividerMoved = false; // whether a person moved the divider; until then it is at the position of the edit
let requests = 0, request = null, requestedAt = 0, marking = null, missed = false; // numbers of the pending request and of the pending mark; null if answered
const queued = []; // marks made meanwhile: the server processes one at a time
// Number of the pending frame or film, null if answered, and the newest one requested meanwhile. The viewer itself keeps it: Gradio's
// `always_last` would send the data of the first event again.
let turning = null, turnedAt = 0, next = null;
const PATIENCE = 30000; // milliseconds after which a response counts as lost

const value = () => props.value || {};
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

function show() {
  const still = value();
  element.querySelector(".viewer").hidden = !still.src;
  if (!still.src) return;
  // Skip responses to earlier requests and to the page's buttons: the response to the newest request follows.
  if (request !== null && request !== still.ask && performance.now() - requestedAt < PATIENCE) { missed = missed || !still.ask; return; }
  request = null;
  stop();
  wanted = still.frame;
  picture.src = still.src;
  picture.alt = still.label || "";
  over.hidden = !still.over;
  divider.parentElement.hidden = !still.over;
  if (still.over && still.split !== undefined && !dividerMoved) divider.value = still.split;
  if (still.over) { over.src = still.over; over.alt = still.over_label || ""; split(); }
  tools.hidden = !still.marking;
  view.classList.toggle("marking", !!still.marking);
  part("left-label").textContent = still.over ? still.label : "";
  part("right-label").textContent = still.over ? still.over_label : "";
  bar.hidden = still.count < 2;
  range.max = still.count - 1;
  range.value = still.frame;
  range.setAttribute("aria-valuetext", `frame ${still.frame} of ${still.count - 1}`);
  count.textContent = `${still.frame} / ${still.count - 1}`;
  view.style.setProperty("--ratio", still.width / still.height); // fits the picture below the tabs
  marks.setAttribute("viewBox", `0 0 ${still.width} ${still.height}`);
  drawMarks();
  setBusy(still.pending);
  // A skipped response to a button may be newer than this one, for example the end of the work that this one still shows as pending.
  if (missed) go(still.frame);
  missed = false;
  stats.come = String(Number(stats.come || 0) + 1);
  autoplay = !!still.autoplay && !matchMedia("(prefers-reduced-motion: reduce)").matches;
  startAutoplay();
  const since = sent;
  sent = 0;
  picture.decode().catch(() => {}).then(() => requestAnimationFrame(() => {
    if (since) stats.seconds = String((performance.now() - since) / 1000);
    stats.shown = String(Number(stats.shown || 0) + 1);
  }));
}

// Send an event to the server; the view is busy until the response. While a frame or film is pending, only the newest request waits.
function send(name, data) {
  sent = requestedAt = performance.now();
  request = ++requests;
  setBusy(" ");
  const event = { ...data, ask: request };
  if (name === "mark") { marking = request; trigger(name, event); }
  else if (turning !== null && performance.now() - turnedAt < PATIENCE) next = [name, event];
  else turn(name, event);
}

function turn(name, event) {
  turning = event.ask;
  turnedAt = performance.now();
  next = null;
  trigger(name, event);
}

// Send what waits for a response or a failure: the next queued mark, the newest frame or film.
function releaseMark() {
  marking = null;
  if (queued.length) send("mark", queued.shift());
}
function releaseTurn() {
  turning = null;
  if (next) turn(...next);
}

// Discard queued marks after clearing or undoing.
view.addEventListener("forget", () => { queued.length = 0; });

// Set the busy state and the text of the pending work; without text the view is idle.
function setBusy(pending) {
  view.classList.toggle("busy", !!pending);
  view.setAttribute("aria-busy", String(!!pending));
  part("pending").textContent = (pending || "").trim();
}

function addShape(name, attributes) {
  const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) shape.setAttribute(key, attributes[key]);
  marks.appendChild(shape);
}

function drawMarks() {
  const still = value(), radius = Math.max(still.width, still.height) / 110;
  marks.replaceChildren();
  for (const mark of still.marks || []) {
    if (mark.kind === "box") addShape("rect", { x: mark.x, y: mark.y, width: mark.width, height: mark.height, class: "box" });
    else addShape("circle", { cx: mark.x, cy: mark.y, r: radius, class: mark.kind });
  }
  if (drag && brushing()) {
    const path = drag.stroke.map(([x, y], index) => `${index ? "L" : "M"} ${x} ${y}`).join(" ");
    addShape("path", { d: path + ` L ${drag.to.x} ${drag.to.y}`, class: "stroke " + tool, "stroke-width": brush() });
  } else if (drag && drag.moved) addShape("rect", { ...corners(drag), class: "box drawing" });
  if (cross) {
    addShape("path", { d: `M ${cross.x} 0 V ${still.height} M 0 ${cross.y} H ${still.width}`, class: "cross" });
  }
}

const brushing = () => tool === "paint" || tool === "erase";
const brush = () => (Number(part("brush-size").value) / 200) * value().width;

function at(event) {
  const still = value(), box = picture.getBoundingClientRect();
  return {
    x: clamp((event.clientX - box.left) / box.width, 0, 1) * still.width,
    y: clamp((event.clientY - box.top) / box.height, 0, 1) * still.height,
  };
}

function corners({ from, to }) {
  return { x: Math.min(from.x, to.x), y: Math.min(from.y, to.y), width: Math.abs(from.x - to.x), height: Math.abs(from.y - to.y) };
}

function addMark(data) {
  const mark = { frame: value().frame, ...data };
  if (marking === null) send("mark", mark);
  else queued.push(mark);
}

function selectTool(name) {
  tool = name;
  part("brush").hidden = !brushing();
  for (const button of tools.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
}

view.addEventListener("pointerdown", (event) => {
  if (!value().marking || event.button > 1) return;
  view.setPointerCapture(event.pointerId);
  const from = at(event);
  drag = { from, to: from, moved: false, stroke: [[from.x, from.y]] };
});
view.addEventListener("pointermove", (event) => {
  if (!drag) return;
  drag.to = at(event);
  if (brushing() && drag.stroke.length < 2000) drag.stroke.push([drag.to.x, drag.to.y]);
  const { width, height } = corners(drag), still = value();
  drag.moved = Math.max(width / still.width, height / still.height) > 0.012;
  drawMarks();
});
view.addEventListener("pointerup", (event) => {
  if (!drag) return;
  const finished = drag;
  drag = null;
  if (brushing()) addMark({ kind: tool, width: brush(), stroke: [...finished.stroke, [finished.to.x, finished.to.y]] });
  else if (finished.moved) addMark({ kind: "box", ...corners(finished) });
  else if (tool !== "box") addMark({ kind: tool === "not-point" || event.shiftKey || event.altKey ? "not-point" : "point", ...finished.from });
  drawMarks();
});

view.addEventListener("keydown", (event) => {
  const still = value(), step = (event.shiftKey ? 0.05 : 0.01) * still.width;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (event.key === "PageUp") go(still.frame - 1);
  else if (event.key === "PageDown") go(still.frame + 1);
  else if (!still.marking) return;
  else if (moves[event.key]) {
    cross = cross || { x: still.width / 2, y: still.height / 2 };
    cross = { x: clamp(cross.x + moves[event.key][0], 0, still.width), y: clamp(cross.y + moves[event.key][1], 0, still.height) };
    part("spoken").textContent = `${Math.round(cross.x)}, ${Math.round(cross.y)}`;
  } else if (event.key === "Enter" && cross) addMark({ kind: "point", ...cross });
  else if (event.key.toLowerCase() === "n" && cross) addMark({ kind: "not-point", ...cross });
  else if (event.key.toLowerCase() === "b" && cross) {
    if (drag) { drag.to = cross; const finished = drag; drag = null; addMark({ kind: "box", ...corners(finished) }); }
    else drag = { from: cross, to: cross, moved: false };
  } else return;
  event.preventDefault();
  drawMarks();
});
view.addEventListener("blur", () => { cross = null; drawMarks(); });

function go(frame) {
  const still = value();
  wanted = clamp(frame, 0, still.count - 1);
  range.value = wanted;
  count.textContent = `${wanted} / ${still.count - 1}`;
  send("frame", { frame: wanted });
}

function stop() {
  if (playing) clearInterval(playing);
  playing = null;
  voice.pause();
  play.textContent = "Play";
  play.setAttribute("aria-pressed", "false");
}

// Play in a loop, starting at the current frame. Audible sound is the clock; without it, the system clock is.
function start(film) {
  stop();
  request = null;
  setBusy();
  marks.replaceChildren();
  play.textContent = "Stop";
  play.setAttribute("aria-pressed", "true");
  sound.hidden = !film.sound;
  if (film.sound && voice.src !== film.sound) voice.src = film.sound;
  let startTime;
  const seek = (index) => {
    startTime = performance.now() - (index / film.rate) * 1000;
    if (!film.sound) return;
    voice.currentTime = index / film.rate;
    updateSound();
  };
  playing = setInterval(() => {
    if (!view.checkVisibility()) return stop();
    const isAudible = !voice.paused && !voice.muted && voice.readyState > 2;
    let index = Math.floor((isAudible ? voice.currentTime : (performance.now() - startTime) / 1000) * film.rate + 1e-3);
    if (isAudible) startTime = performance.now() - voice.currentTime * 1000;
    if (index >= film.pictures.length) seek(index = 0);
    picture.src = film.pictures[index];
    if (film.over) over.src = film.over[index];
    wanted = film.numbers[index];
    range.value = wanted;
    count.textContent = `${wanted} / ${value().count - 1}`;
  }, 1000 / film.rate);
  seek(Math.max(0, film.numbers.findIndex((number) => number >= wanted)));
}

// Apply the sound setting; browsers reject playback without a user action.
function updateSound() {
  voice.muted = !audible;
  sound.textContent = audible ? "Mute" : "Unmute";
  if (playing) voice.play().catch(() => {});
}

function startAutoplay() {
  if (!autoplay || !view.checkVisibility() || value().count < 2) return;
  autoplay = false;
  send("film", { frame: wanted });
}
new IntersectionObserver(startAutoplay).observe(element);

function split() {
  over.style.clipPath = `inset(0 0 0 ${divider.value}%)`;
  part("line").style.left = divider.value + "%";
}

range.addEventListener("input", () => go(Number(range.value)));
part("before").addEventListener("click", () => go(wanted - 1));
part("after").addEventListener("click", () => go(wanted + 1));
play.addEventListener("click", () => {
  if (playing) { stop(); go(wanted); return; }
  if (audible === null) audible = true;
  send("film", { frame: wanted });
});
sound.addEventListener("click", () => { audible = !audible; updateSound(); });
divider.addEventListener("input", () => { dividerMoved = true; split(); });
for (const button of tools.querySelectorAll("button")) button.addEventListener("click", () => selectTool(button.dataset.tool));
selectTool("point");
watch("value", () => {
  const { film, ask } = value();
  if (!film) show();
  else if (request === null || ask === request) start(film); // a newer request cancels playback
  if (marking !== null && ask === marking) releaseMark();
  if (turning !== null && ask === turning) releaseTurn();
});
// Gradio takes every quoted name for an event; then its updates of this property contain a description of a Python object.
const [failed] = Object.keys({ failed: 0 });
watch(failed, () => { request = null; setBusy(); releaseMark(); releaseTurn(); });
show();
