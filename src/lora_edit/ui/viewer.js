// The viewer of a clip's frames: one picture that can be marked, or two under a slider; frames are stepped, dragged and played.
// It keeps its own page elements; `props.value` brings what to show, and `trigger` tells what a person did.
const part = (name) => element.querySelector("." + name);
const view = part("view"), picture = part("picture"), over = part("over"), marks = part("marks"), bar = part("bar");
const range = part("range"), count = part("count"), play = part("play"), divider = part("divider"), tools = part("tools");
const voice = part("voice"), sound = part("sound");
const told = element.querySelector(".viewer").dataset; // how many pictures came and were drawn, and how long the last answer took
let sent = 0, tool = "point", drag = null, cross = null, playing = null, wanted = 0;
let audible = null; // is the sound to be heard? Undecided until a person plays the clip or presses the button: what plays by itself is mute
let byItself = false; // the clip in sight is to be played without being asked, once it can be seen
let divided = false; // has the divider been moved by hand? Until then it stands where the edit is
let asks = 0, asked = null, askedAt = 0, marking = null, missed = false; // questions are numbered; the last one, and the last that was a mark, while unanswered
const held = []; // marks made meanwhile: the server takes one at a time

const value = () => props.value || {};
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

function show() {
  const now = value();
  element.querySelector(".viewer").hidden = !now.src;
  if (!now.src) return;
  // Not the answer to what was done last, which comes after it and shows more.
  if (asked !== null && asked !== now.ask && performance.now() - askedAt < 5000) { missed = true; return; }
  asked = null;
  stop();
  wanted = now.frame;
  picture.src = now.src;
  picture.alt = now.label || "";
  over.hidden = !now.over;
  divider.parentElement.hidden = !now.over;
  if (now.over && now.split !== undefined && !divided) divider.value = now.split;
  if (now.over) { over.src = now.over; over.alt = now.over_label || ""; split(); }
  tools.hidden = !now.marking;
  view.classList.toggle("marking", !!now.marking);
  part("left-label").textContent = now.over ? now.label : "";
  part("right-label").textContent = now.over ? now.over_label : "";
  bar.hidden = now.count < 2;
  range.max = now.count - 1;
  range.value = now.frame;
  range.setAttribute("aria-valuetext", `frame ${now.frame} of ${now.count - 1}`);
  count.textContent = `${now.frame} / ${now.count - 1}`;
  view.style.setProperty("--ratio", now.width / now.height); // so that all of it fits below the steps
  marks.setAttribute("viewBox", `0 0 ${now.width} ${now.height}`);
  drawMarks();
  settle(now.pending);
  // What was passed over may have been the end of what this answer still waits for.
  if (missed && now.pending) go(now.frame);
  missed = false;
  told.come = String(Number(told.come || 0) + 1);
  byItself = !!now.autoplay && !matchMedia("(prefers-reduced-motion: reduce)").matches;
  playByItself();
  const since = sent;
  sent = 0;
  picture.decode().catch(() => {}).then(() => requestAnimationFrame(() => {
    if (since) told.seconds = String((performance.now() - since) / 1000);
    told.shown = String(Number(told.shown || 0) + 1);
  }));
}

// Tell the server what a person did; until its answer the view says that it is busy.
function tell(what, data) {
  sent = askedAt = performance.now();
  asked = ++asks;
  if (what === "mark") marking = asked;
  settle(" ");
  trigger(what, { ...data, ask: asked });
}

// A mark is answered, or refused: on to the next.
function release() {
  marking = null;
  if (held.length) tell("mark", held.shift());
}

// All is cleared or undone: marks that wait for their turn are not meant any more.
view.addEventListener("forget", () => { held.length = 0; });

// Busy with what is pending, if anything is.
function settle(pending) {
  view.classList.toggle("busy", !!pending);
  view.setAttribute("aria-busy", String(!!pending));
  part("pending").textContent = (pending || "").trim();
}

function node(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  marks.appendChild(made);
}

function drawMarks() {
  const now = value(), radius = Math.max(now.width, now.height) / 110;
  marks.replaceChildren();
  for (const mark of now.marks || []) {
    if (mark.kind === "box") node("rect", { x: mark.x, y: mark.y, width: mark.width, height: mark.height, class: "box" });
    else node("circle", { cx: mark.x, cy: mark.y, r: radius, class: mark.kind });
  }
  if (drag && brushing()) {
    const path = drag.stroke.map(([x, y], index) => `${index ? "L" : "M"} ${x} ${y}`).join(" ");
    node("path", { d: path + ` L ${drag.to.x} ${drag.to.y}`, class: "stroke " + tool, "stroke-width": brush() });
  } else if (drag && drag.moved) node("rect", { ...corners(drag), class: "box drawing" });
  if (cross) {
    node("path", { d: `M ${cross.x} 0 V ${now.height} M 0 ${cross.y} H ${now.width}`, class: "cross" });
  }
}

const brushing = () => tool === "paint" || tool === "erase";
const brush = () => (Number(part("brush-size").value) / 200) * value().width;

function at(event) {
  const now = value(), box = picture.getBoundingClientRect();
  return {
    x: clamp((event.clientX - box.left) / box.width, 0, 1) * now.width,
    y: clamp((event.clientY - box.top) / box.height, 0, 1) * now.height,
  };
}

function corners({ from, to }) {
  return { x: Math.min(from.x, to.x), y: Math.min(from.y, to.y), width: Math.abs(from.x - to.x), height: Math.abs(from.y - to.y) };
}

function mark(what) {
  const made = { frame: value().frame, ...what };
  if (marking === null) tell("mark", made);
  else held.push(made);
}

function choose(name) {
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
  const { width, height } = corners(drag), now = value();
  drag.moved = Math.max(width / now.width, height / now.height) > 0.012;
  drawMarks();
});
view.addEventListener("pointerup", (event) => {
  if (!drag) return;
  const done = drag;
  drag = null;
  if (brushing()) mark({ kind: tool, width: brush(), stroke: [...done.stroke, [done.to.x, done.to.y]] });
  else if (done.moved) mark({ kind: "box", ...corners(done) });
  else if (tool !== "box") mark({ kind: tool === "not-point" || event.shiftKey || event.altKey ? "not-point" : "point", ...done.from });
  drawMarks();
});

view.addEventListener("keydown", (event) => {
  const now = value(), step = (event.shiftKey ? 0.05 : 0.01) * now.width;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  if (event.key === "PageUp") go(now.frame - 1);
  else if (event.key === "PageDown") go(now.frame + 1);
  else if (!now.marking) return;
  else if (moves[event.key]) {
    cross = cross || { x: now.width / 2, y: now.height / 2 };
    cross = { x: clamp(cross.x + moves[event.key][0], 0, now.width), y: clamp(cross.y + moves[event.key][1], 0, now.height) };
    part("spoken").textContent = `${Math.round(cross.x)}, ${Math.round(cross.y)}`;
  } else if (event.key === "Enter" && cross) mark({ kind: "point", ...cross });
  else if (event.key.toLowerCase() === "n" && cross) mark({ kind: "not-point", ...cross });
  else if (event.key.toLowerCase() === "b" && cross) {
    if (drag) { drag.to = cross; const done = drag; drag = null; mark({ kind: "box", ...corners(done) }); }
    else drag = { from: cross, to: cross, moved: false };
  } else return;
  event.preventDefault();
  drawMarks();
});
view.addEventListener("blur", () => { cross = null; drawMarks(); });

function go(frame) {
  const now = value();
  wanted = clamp(frame, 0, now.count - 1);
  range.value = wanted;
  count.textContent = `${wanted} / ${now.count - 1}`;
  tell("frame", { frame: wanted });
}

function stop() {
  if (playing) clearInterval(playing);
  playing = null;
  voice.pause();
  play.textContent = "Play";
  play.setAttribute("aria-pressed", "false");
}

// Play in a loop, from the frame in sight on; what is heard sets the pace, and else the clock.
function start(film) {
  stop();
  asked = null;
  settle();
  marks.replaceChildren();
  play.textContent = "Stop";
  play.setAttribute("aria-pressed", "true");
  sound.hidden = !film.sound;
  if (film.sound && voice.src !== film.sound) voice.src = film.sound;
  let begun;
  const from = (index) => {
    begun = performance.now() - (index / film.rate) * 1000;
    if (!film.sound) return;
    voice.currentTime = index / film.rate;
    hear();
  };
  playing = setInterval(() => {
    if (!view.checkVisibility()) return stop();
    const heard = !voice.paused && !voice.muted && voice.readyState > 2;
    let index = Math.floor((heard ? voice.currentTime : (performance.now() - begun) / 1000) * film.rate + 1e-3);
    if (heard) begun = performance.now() - voice.currentTime * 1000;
    if (index >= film.pictures.length) from(index = 0);
    picture.src = film.pictures[index];
    if (film.over) over.src = film.over[index];
    wanted = film.numbers[index];
    range.value = wanted;
    count.textContent = `${wanted} / ${value().count - 1}`;
  }, 1000 / film.rate);
  from(Math.max(0, film.numbers.findIndex((number) => number >= wanted)));
}

// The sound as it is wanted; browsers refuse what nobody asked for.
function hear() {
  voice.muted = !audible;
  sound.textContent = audible ? "Mute" : "Unmute";
  if (playing) voice.play().catch(() => {});
}

function playByItself() {
  if (!byItself || !view.checkVisibility() || value().count < 2) return;
  byItself = false;
  tell("film", { frame: wanted });
}
new IntersectionObserver(playByItself).observe(element);

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
  tell("film", { frame: wanted });
});
sound.addEventListener("click", () => { audible = !audible; hear(); });
divider.addEventListener("input", () => { divided = true; split(); });
for (const button of tools.querySelectorAll("button")) button.addEventListener("click", () => choose(button.dataset.tool));
choose("point");
watch("value", () => {
  const { film, ask } = value();
  if (!film) show();
  else if (asked === null || ask === asked) start(film); // a person who went on meanwhile does not want it any more
  if (marking !== null && ask === marking) release();
});
watch("failed", () => { asked = null; settle(); release(); });
show();
