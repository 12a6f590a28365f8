"use strict";
// One participant's way through the page: instructions, groups of videos with questions, and the file of answers.
// It talks to no server. What is drawn by chance follows from the participant's id, so that a reload shows the same again.

const FORMAT = "user-study-answers-1";

/** Draws of whole numbers below a limit, always the same for the same text (FNV-1a feeds xorshift). */
function seededDraw(text) {
  let state = 2166136261;
  for (const letter of text) state = Math.imul(state ^ letter.codePointAt(0), 16777619);
  state = state >>> 0 || 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>>= 0);
  };
  for (let i = 0; i < 8; i += 1) next(); // alike texts part ways
  return (limit) => Math.floor((next() / 4294967296) * limit);
}

/** The items in another order (Fisher and Yates). */
function shuffled(items, draw) {
  const result = [...items];
  for (let i = result.length - 1; i > 0; i -= 1) {
    const j = draw(i + 1);
    [result[i], result[j]] = [result[j], result[i]];
  }
  return result;
}

/** 1 to count. */
function upTo(count) {
  return Array.from({ length: count }, (_, i) => i + 1);
}

/** The groups that a participant sees, in order, each with the order of its options on the screen. */
function planFor(study, participant) {
  const draw = seededDraw(study.id + " " + participant);
  const groups = shuffled(upTo(study.groups), draw).slice(0, study.perParticipant);
  return groups.map((group) => ({ group, shown: shuffled(upTo(study.letters.length), draw) }));
}

/** The first question that a group's answers leave open, or undefined. */
function openQuestion(study, given) {
  return study.questions.find(({ key, ranked }) =>
    ranked ? Object.keys((given || {})[key] || {}).length < study.letters.length : !(given || {})[key]);
}

/** What is saved: rankings list options from best to worst. */
function answerRecord(study, state, plan, now) {
  const answers = plan.filter(({ group }) => !openQuestion(study, state.answers[group])).map(({ group, shown }) => {
    const record = { group, shown };
    for (const { key, ranked } of study.questions) {
      const given = state.answers[group][key];
      record[key] = ranked ? upTo(shown.length).sort((a, b) => given[a] - given[b]) : given;
    }
    return record;
  });
  return { format: FORMAT, study: study.id, participant: state.participant, started: state.started, saved: now, answers };
}

/** A new participant: a drawn id and nothing answered. `position` is -1 for the instructions, then the group's place in the plan. */
function newState() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  const participant = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { participant, started: new Date().toISOString(), position: -1, answers: {} };
}

/** Progress in this browser; `works` is false where the browser keeps nothing, and the page then does without. */
function makeStore(slot) {
  let works = true;
  const guarded = (action) => {
    try {
      return action();
    } catch (error) {
      works = false;
      return null;
    }
  };
  const isState = (value) =>
    value && typeof value.participant === "string" && typeof value.started === "string" &&
    Number.isInteger(value.position) && value.answers && typeof value.answers === "object";
  return {
    works: () => works,
    save: (state) => guarded(() => localStorage.setItem(slot, JSON.stringify(state))),
    load: () => {
      const text = guarded(() => localStorage.getItem(slot));
      try {
        const value = JSON.parse(text);
        return isState(value) ? value : null;
      } catch (error) {
        return null;
      }
    },
  };
}

/** An element with attributes and children. */
function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Resolves once the video stands at its first frame, or after half a second. */
function rewound(video) {
  return new Promise((done) => {
    if (video.currentTime === 0) return done();
    video.addEventListener("seeked", done, { once: true });
    video.currentTime = 0;
    return setTimeout(done, 500);
  });
}

/** Plays several videos as one: they start together, stay together, and start again when the longest has ended. */
function playTogether(videos, button) {
  let playing = false;
  let restarting = false;
  let stopped = false;
  const usable = () => videos.filter((video) => !video.error);
  const show = () => (button.textContent = playing ? "Pause all" : "Play all");
  const pause = () => {
    playing = false;
    usable().forEach((video) => video.pause());
    show();
  };
  const play = () => {
    playing = true;
    show();
    // A browser that does not let videos start by themselves refuses here; the button then starts them.
    for (const video of usable()) if (!video.ended) video.play().catch((error) => error.name === "NotAllowedError" && pause());
  };
  const restart = async () => {
    if (restarting) return;
    restarting = true;
    usable().forEach((video) => video.pause());
    await Promise.all(usable().map(rewound));
    restarting = false;
    if (!stopped) play();
  };
  const align = () => {
    const running = usable().filter((video) => !video.ended);
    if (!playing || !running.length) return;
    for (const video of running.slice(1)) {
      if (Math.abs(video.currentTime - running[0].currentTime) > 0.1) video.currentTime = running[0].currentTime;
    }
  };
  const ready = () => usable().every((video) => video.readyState >= 3);
  let begun = false;
  const begin = () => {
    if (begun || !ready()) return;
    begun = true;
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) restart();
  };
  for (const video of videos) {
    video.addEventListener("canplay", begin);
    video.addEventListener("error", begin);
    video.addEventListener("ended", () => playing && usable().every((each) => each.ended) && restart());
  }
  const returned = () => !document.hidden && playing && play(); // browsers pause videos of hidden pages
  document.addEventListener("visibilitychange", returned);
  const timer = setInterval(align, 250);
  button.addEventListener("click", () => (playing ? pause() : usable().every((video) => video.ended) ? restart() : play()));
  show();
  return {
    restart,
    stop: () => {
      stopped = true;
      pause();
      clearInterval(timer);
      document.removeEventListener("visibilitychange", returned);
      for (const video of videos) {
        video.removeAttribute("src");
        video.load(); // lets go of the file
      }
    },
  };
}

/** A titled video or picture that can be made as wide as the page. */
function figure(title, media) {
  const larger = element("button", { type: "button", "aria-pressed": "false", "aria-label": "Larger: " + title }, "Larger");
  const made = element("figure", {}, element("figcaption", {}, element("strong", {}, title), larger), media);
  larger.addEventListener("click", () => larger.setAttribute("aria-pressed", String(made.classList.toggle("large"))));
  return made;
}

/** A muted video of the group. */
function groupVideo(file, label) {
  const video = element("video", { src: "media/" + file, preload: "auto", playsinline: "", "aria-label": label });
  video.muted = true;
  video.addEventListener("error", () => {
    if (video.hasAttribute("src")) video.replaceWith(element("p", { class: "fault" }, "This browser cannot play this video."));
  });
  return video;
}

/** A row of places for every option; a place that is given to another option is taken from the first. */
function rankingTable(question, options, given, changed) {
  const count = options.length;
  const words = (place) => (place === 1 ? "1 (best)" : place === count ? place + " (worst)" : String(place));
  const heads = upTo(count).map((place) => element("th", { scope: "col" }, words(place)));
  const body = element("tbody", {});
  for (const { option, letter } of options) {
    const row = element("tr", {}, element("th", { scope: "row" }, letter));
    for (const place of upTo(count)) {
      const label = "Option " + letter + ", place " + words(place);
      const radio = element("input", { type: "radio", name: question.key + "-" + option, value: place, "aria-label": label });
      radio.checked = given[option] === place;
      radio.addEventListener("change", () => {
        for (const other of Object.keys(given)) if (given[other] === place) delete given[other];
        given[option] = place;
        for (const each of body.querySelectorAll("input")) each.checked = given[each.name.split("-")[1]] === Number(each.value);
        changed();
      });
      row.append(element("td", {}, element("label", {}, radio)));
    }
    body.append(row);
  }
  return element("table", {}, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Option"), ...heads)), body);
}

/** One button for every option. */
function choiceList(question, options, answers, changed) {
  const list = element("div", { class: "choices" });
  for (const { option, letter } of options) {
    const radio = element("input", { type: "radio", name: question.key, value: option });
    radio.checked = answers[question.key] === option;
    radio.addEventListener("change", () => {
      answers[question.key] = option;
      changed();
    });
    list.append(element("label", {}, radio, " Option " + letter));
  }
  return list;
}

/** A question with its controls. */
function questionField(question, options, answers, changed) {
  const controls = question.ranked
    ? rankingTable(question, options, (answers[question.key] = answers[question.key] || {}), changed)
    : choiceList(question, options, answers, changed);
  const field = element("fieldset", { id: question.key }, element("legend", {}, question.title), element("p", {}, question.text), controls);
  return field;
}

/** Wires the page up. */
function start() {
  const byId = (id) => document.getElementById(id);
  const study = JSON.parse(byId("study").textContent);
  const store = makeStore("user-study-" + study.id);
  const screens = ["instructions", "group", "finish"];
  let state = store.load() || newState();
  let plan = planFor(study, state.participant);
  let player = null;

  const keep = () => {
    store.save(state);
    for (const each of document.querySelectorAll(".unkept")) each.hidden = store.works();
  };

  const showGroup = () => {
    const { group, shown } = plan[state.position];
    const options = shown.map((option, place) => ({ option, letter: study.letters[place] }));
    const answers = (state.answers[group] = state.answers[group] || {});
    const source = groupVideo(group + "_source.mp4", "The source clip");
    const first = element("img", { src: "media/" + group + "_first.png", alt: "The edited first frame" });
    const results = options.map(({ option, letter }) => groupVideo(group + "_" + option + ".mp4", "Option " + letter));
    byId("given").replaceChildren(figure("Source clip", source), figure("Edited first frame", first));
    byId("options").replaceChildren(...results.map((video, place) => figure("Option " + options[place].letter, video)));
    byId("questions").replaceChildren(...study.questions.map((question) => questionField(question, options, answers, () => {
      byId("missing").textContent = "";
      keep();
    })));
    byId("progress").textContent = "Group " + (state.position + 1) + " of " + plan.length;
    byId("missing").textContent = "";
    byId("back").hidden = state.position === 0;
    const button = element("button", { type: "button" });
    byId("play").replaceChildren(button);
    player = playTogether([source, ...results], button);
  };

  const showFinish = () => {
    const text = JSON.stringify(answerRecord(study, state, plan, new Date().toISOString()), null, 1);
    const link = byId("download");
    if (link.href.startsWith("blob:")) URL.revokeObjectURL(link.href);
    link.href = URL.createObjectURL(new Blob([text + "\n"], { type: "application/json" }));
    link.download = "answers-" + state.participant + ".json";
    byId("text").value = text;
    byId("copied").textContent = "";
  };

  const show = () => {
    if (player) player.stop();
    player = null;
    state.position = Math.max(-1, Math.min(state.position, plan.length));
    const screen = state.position < 0 ? "instructions" : state.position < plan.length ? "group" : "finish";
    for (const each of screens) byId(each).hidden = each !== screen;
    for (const each of document.querySelectorAll(".participant")) each.textContent = state.participant;
    if (screen === "group") showGroup();
    if (screen === "finish") showFinish();
    keep();
  };

  const move = (position) => {
    state.position = position;
    show();
    scrollTo(0, 0);
    document.querySelector("section:not([hidden]) h1").focus();
  };

  const next = () => {
    const open = openQuestion(study, state.answers[plan[state.position].group]);
    if (!open) return move(state.position + 1);
    byId("missing").textContent = "Still open: " + open.title + (open.ranked ? ". Give every option a place." : ". Choose one option.");
    const inputs = [...byId(open.key).querySelectorAll("input")];
    const rows = (input) => inputs.filter((each) => each.name === input.name);
    inputs.find((input) => !rows(input).some((each) => each.checked)).focus();
    return undefined;
  };

  const copy = async () => {
    byId("text").select();
    try {
      await navigator.clipboard.writeText(byId("text").value);
      byId("copied").textContent = "Copied.";
    } catch (error) {
      byId("copied").textContent = "Selected; copy it with your browser's menu or keys.";
    }
  };

  const another = () => {
    if (!confirm("Forget these answers in this browser and begin anew? Save the file first.")) return;
    state = newState();
    plan = planFor(study, state.participant);
    move(-1);
  };

  byId("begin").addEventListener("click", () => move(0));
  byId("next").addEventListener("click", next);
  byId("back").addEventListener("click", () => move(state.position - 1));
  byId("restart").addEventListener("click", () => player && player.restart());
  byId("review").addEventListener("click", () => move(plan.length - 1));
  byId("copy").addEventListener("click", copy);
  byId("another").addEventListener("click", another);
  show();
}

if (typeof document !== "undefined") start();
