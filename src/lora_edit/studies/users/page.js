"use strict";
// The page for one participant: instructions, groups of videos with questions, and the file of answers.
// It contacts no server. All random draws are seeded with the participant's id, so a reload shows the same page.

const FORMAT = "user-study-answers-1";

/** A generator of integers below a limit, seeded with a text (FNV-1a seeds xorshift). */
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
  for (let i = 0; i < 8; i += 1) next(); // similar seeds diverge
  return (limit) => Math.floor((next() / 4294967296) * limit);
}

/** A shuffled copy of the items (Fisher and Yates). */
function shuffled(items, draw) {
  const result = [...items];
  for (let i = result.length - 1; i > 0; i -= 1) {
    const j = draw(i + 1);
    [result[i], result[j]] = [result[j], result[i]];
  }
  return result;
}

/** The integers from 1 to count. */
function upTo(count) {
  return Array.from({ length: count }, (_, i) => i + 1);
}

/** The groups of a participant, in order, each with the order of its options on the screen. */
function planFor(study, participant) {
  const draw = seededDraw(study.id + " " + participant);
  const groups = shuffled(upTo(study.groups), draw).slice(0, study.perParticipant);
  return groups.map((group) => ({ group, shown: shuffled(upTo(study.letters.length), draw) }));
}

/** The first question without a complete answer for a group, or undefined. */
function openQuestion(study, answers) {
  return study.questions.find(({ key, ranked }) =>
    ranked ? Object.keys((answers || {})[key] || {}).length < study.letters.length : !(answers || {})[key]);
}

/** The record to save; rankings list options from best to worst. */
function answerRecord(study, state, plan, now) {
  const answers = plan.filter(({ group }) => !openQuestion(study, state.answers[group])).map(({ group, shown }) => {
    const record = { group, shown };
    for (const { key, ranked } of study.questions) {
      const answer = state.answers[group][key];
      record[key] = ranked ? upTo(shown.length).sort((a, b) => answer[a] - answer[b]) : answer;
    }
    return record;
  });
  return { format: FORMAT, study: study.id, participant: state.participant, started: state.started, saved: now, answers };
}

/** The state of a new participant: a random id and no answers. `position` is -1 for the instructions, then an index into the plan. */
function newState() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  const participant = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { participant, started: new Date().toISOString(), position: -1, answers: {} };
}

/** Storage of the state in this browser; `works` is false when the browser stores nothing, and the page then continues without it. */
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
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Seeks a video to its first frame; resolves when it is there, or after half a second. */
function rewound(video) {
  return new Promise((done) => {
    if (video.currentTime === 0) return done();
    video.addEventListener("seeked", done, { once: true });
    video.currentTime = 0;
    return setTimeout(done, 500);
  });
}

/** Plays several videos in sync; they restart together when the longest has ended. */
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
    // A browser that blocks autoplay rejects here; the button then starts the videos.
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
  let started = false;
  const startOnce = () => {
    if (started || !ready()) return;
    started = true;
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) restart();
  };
  for (const video of videos) {
    video.addEventListener("canplay", startOnce);
    video.addEventListener("error", startOnce);
    video.addEventListener("ended", () => playing && usable().every((each) => each.ended) && restart());
  }
  const resume = () => !document.hidden && playing && play(); // browsers pause videos of hidden pages
  document.addEventListener("visibilitychange", resume);
  const timer = setInterval(align, 250);
  button.addEventListener("click", () => (playing ? pause() : usable().every((video) => video.ended) ? restart() : play()));
  show();
  return {
    restart,
    stop: () => {
      stopped = true;
      pause();
      clearInterval(timer);
      document.removeEventListener("visibilitychange", resume);
      for (const video of videos) {
        video.removeAttribute("src");
        video.load(); // releases the file
      }
    },
  };
}

/** A titled video or picture with a button that enlarges it to the width of the page. */
function figure(title, media) {
  const larger = element("button", { type: "button", "aria-pressed": "false", "aria-label": "Larger: " + title }, "Larger");
  const node = element("figure", {}, element("figcaption", {}, element("strong", {}, title), larger), media);
  larger.addEventListener("click", () => larger.setAttribute("aria-pressed", String(node.classList.toggle("large"))));
  return node;
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

/** A row of ranks for every option; a rank that moves to another option is removed from the first. */
function rankingTable(question, options, ranks, changed) {
  const count = options.length;
  const words = (place) => (place === 1 ? "1 (best)" : place === count ? place + " (worst)" : String(place));
  const heads = upTo(count).map((place) => element("th", { scope: "col" }, words(place)));
  const body = element("tbody", {});
  for (const { option, letter } of options) {
    const row = element("tr", {}, element("th", { scope: "row" }, letter));
    for (const place of upTo(count)) {
      const label = "Option " + letter + ", place " + words(place);
      const radio = element("input", { type: "radio", name: question.key + "-" + option, value: place, "aria-label": label });
      radio.checked = ranks[option] === place;
      radio.addEventListener("change", () => {
        for (const other of Object.keys(ranks)) if (ranks[other] === place) delete ranks[other];
        ranks[option] = place;
        for (const each of body.querySelectorAll("input")) each.checked = ranks[each.name.split("-")[1]] === Number(each.value);
        changed();
      });
      row.append(element("td", {}, element("label", {}, radio)));
    }
    body.append(row);
  }
  return element("table", {}, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Option"), ...heads)), body);
}

/** A radio button for every option. */
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

/** Sets up the page. */
function start() {
  const byId = (id) => document.getElementById(id);
  const study = JSON.parse(byId("study").textContent);
  const store = makeStore("user-study-" + study.id);
  const screens = ["instructions", "group", "finish"];
  let state = store.load() || newState();
  let plan = planFor(study, state.participant);
  let player = null;

  const saveState = () => {
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
      saveState();
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
    saveState();
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
    if (!confirm("Delete these answers from this browser and start again? Save the file first.")) return;
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
