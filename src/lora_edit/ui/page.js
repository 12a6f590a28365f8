// What the page does by itself: sliders and choices under the keyboard, the steps in the browser's history, a job's share in the tab's
// title, fields' names, files that are looked at before they are sent.
() => {
  // A slider moved by keyboard is let go of as one moved by mouse: Gradio tells of the latter only.
  document.addEventListener("keyup", ({ target, key }) => {
    if (target.matches("input[type=range]") && key !== "Tab") target.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
  });

  const tabs = () => [...document.querySelectorAll("#steps .tab-container [role=tab]")];
  let here = null, returning = false;

  // Each step that a person goes to is an entry of the history; what the page shows by itself takes the place of the present entry.
  function follow() {
    const every = tabs(), now = every.findIndex((tab) => tab.getAttribute("aria-selected") === "true");
    if (now < 0 || now === here) return;
    const acted = here !== null && navigator.userActivation.hasBeenActive;
    here = now;
    if (acted && !returning) history.pushState({ step: now }, "");
    else history.replaceState({ step: now }, "");
    returning = false;
    if (!acted) return;
    announced.textContent = `Step ${now + 1} of ${every.length}: ${every[now].textContent.replace(/^\d+\s+/, "")}`;
    // The button that led here is gone: the keyboard goes on at the step's heading.
    setTimeout(() => { if (document.activeElement === document.body || !document.activeElement.checkVisibility()) heading()?.focus(); }, 100);
  }

  const announced = document.createElement("div");
  announced.className = "hidden-text";
  announced.id = "announced";
  announced.setAttribute("aria-live", "polite");
  document.body.append(announced);

  function heading() {
    const shown = [...document.querySelectorAll("#steps h2")].find((each) => each.checkVisibility());
    if (shown) shown.tabIndex = -1;
    return shown;
  }

  // Arrow keys move through the choices of a group, as everywhere else.
  document.addEventListener("keydown", (event) => {
    const way = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key], { target } = event;
    if (!way || !target.matches("input[type=radio]")) return;
    const group = [...target.closest("fieldset, .block").querySelectorAll("input[type=radio]")];
    const next = group[(group.indexOf(target) + way + group.length) % group.length];
    event.preventDefault();
    next.focus();
    next.click();
  });

  // What is wrong is told where it can be seen.
  function bring() {
    const told = [...document.querySelectorAll(".message [role=alert]:not([data-brought])")].filter((each) => each.checkVisibility());
    for (const each of told) {
      each.dataset.brought = "";
      const { top, bottom } = each.getBoundingClientRect();
      if (top < 60 || bottom > innerHeight) each.scrollIntoView({ block: "center" });
    }
  }

  // A file is looked at before it is sent: 2 GB that are no video are told at once. Folders and empty files, too.
  const files = FILES_TAKEN;
  async function wrongWith(file) {
    const words = (text) => text.replace("{name}", file.name);
    if (file.size > files.largest) return words(files.tooLarge);
    let head;
    try { head = new Uint8Array(await file.slice(0, files.head).arrayBuffer()); } catch { return words("{name} cannot be read; choose a file"); }
    if (!head.length) return words("{name} is empty; export it again");
    const hex = (place, count) => [...head.slice(place, place + count)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const known = files.signatures.some(([place, begin]) => hex(place, begin.length / 2) === begin);
    return known || file.size <= files.small ? "" : words(files.noMedia);
  }

  // Beside the field; what the server said of an earlier file there is told no longer.
  function complain(block, text) {
    block.parentElement.querySelectorAll(":scope > .complaint").forEach((each) => each.remove());
    for (const each of block.parentElement.querySelectorAll(".message [role=alert]")) each.style.display = "none";
    if (!text) return;
    const told = document.createElement("div"), list = document.createElement("ul"), line = document.createElement("li");
    told.className = "message complaint";
    told.setAttribute("role", "alert");
    list.className = "said fault";
    line.textContent = text;
    list.append(line);
    told.append(list);
    block.after(told);
    told.scrollIntoView({ block: "nearest" });
  }

  let given = null; // the field that the next upload is for
  async function take(input, file) {
    const block = input.closest(".block"), wrong = await wrongWith(file);
    complain(block, wrong);
    if (wrong) { input.value = ""; return; }
    const chosen = new DataTransfer();
    chosen.items.add(file);
    input.files = chosen.files;
    given = block;
    const change = new Event("change", { bubbles: true });
    change.looked = true;
    input.dispatchEvent(change);
  }
  document.addEventListener("change", (event) => {
    if (event.looked || !event.target.matches("#steps input[type=file]") || !event.target.files.length) return;
    event.stopImmediatePropagation();
    take(event.target, event.target.files[0]);
  }, true);
  document.addEventListener("drop", (event) => {
    const input = event.target.closest?.("#steps .block")?.querySelector("input[type=file]"), file = event.dataTransfer?.files[0];
    if (!input || !file) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    event.target.dispatchEvent(new DragEvent("dragleave", { bubbles: true }));
    take(input, file);
  }, true);

  // An upload can be cancelled: the field is then as it was before.
  const ask = window.fetch;
  window.fetch = (address, how = {}) => {
    if (!given || !String(address).includes("/upload?")) return ask(address, how);
    const cancelling = new AbortController(), block = given, button = document.createElement("button");
    given = null;
    button.className = "cancel";
    button.textContent = "Cancel the upload";
    button.addEventListener("click", () => cancelling.abort());
    block.after(button);
    return ask(address, { ...how, signal: cancelling.signal })
      .catch((error) => { if (cancelling.signal.aborted) return new Response("[]"); throw error; })
      .finally(() => button.remove());
  };

  addEventListener("popstate", ({ state }) => {
    const tab = tabs()[state?.step];
    if (!tab || tab.disabled || state.step === here) return;
    returning = true;
    tab.click();
  });

  function tell() {
    const bar = document.querySelector("#status .job progress"), job = document.querySelector("#status .job.running, #status .job.waiting");
    const share = job && bar && bar.hasAttribute("value") ? `${Math.floor(bar.value * 100)}% ` : job ? "… " : "";
    document.title = share + "lora-edit";
  }

  // Gradio calls every file field alike; each is named by its own label.
  function name() {
    for (const input of document.querySelectorAll("#steps .block input[type=file]")) {
      const button = input.closest("button"), label = input.closest(".block").querySelector("[data-testid=block-label]");
      const words = label && label.innerText.trim();
      if (button && words && button.getAttribute("aria-label") !== words) button.setAttribute("aria-label", words);
    }
  }

  const watch = (place, act, what) => { new MutationObserver(act).observe(document.querySelector(place), { subtree: true, ...what }); act(); };
  watch("#steps", follow, { attributes: true, attributeFilter: ["aria-selected"] });
  watch("#steps", name, { childList: true, characterData: true });
  watch("#steps", bring, { childList: true });
  watch("#status", tell, { childList: true, attributes: true });
}
