// The page's script: keyboard control of sliders and choices, steps in the browser's history, job progress in the tab's title, accessible
// names of fields, and checks of files before their upload.
() => {
  // Emit the release of a slider after keyboard input: Gradio emits it after mouse input only.
  document.addEventListener("keyup", ({ target, key }) => {
    if (target.matches("input[type=range]") && key !== "Tab") target.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
  });

  const tabs = () => [...document.querySelectorAll("#steps .tab-container [role=tab]")];
  let currentStep = null, returning = false;

  // Add a history entry for each step that a person opens; steps that the page opens replace the current entry.
  function updateHistory() {
    const allTabs = tabs(), selected = allTabs.findIndex((tab) => tab.getAttribute("aria-selected") === "true");
    if (selected < 0 || selected === currentStep) return;
    const byPerson = currentStep !== null && navigator.userActivation.hasBeenActive;
    currentStep = selected;
    if (byPerson && !returning) history.pushState({ step: selected }, "");
    else history.replaceState({ step: selected }, "");
    returning = false;
    if (!byPerson) return;
    announcement.textContent = `Step ${selected + 1} of ${allTabs.length}: ${allTabs[selected].textContent.replace(/^\d+\s+/, "")}`;
    // The pressed button is hidden now: move the keyboard focus to the step's heading.
    setTimeout(() => { if (document.activeElement === document.body || !document.activeElement.checkVisibility()) heading()?.focus(); }, 100);
  }

  const announcement = document.createElement("div");
  announcement.className = "hidden-text";
  announcement.id = "announced";
  announcement.setAttribute("aria-live", "polite");
  document.body.append(announcement);

  function heading() {
    const visible = [...document.querySelectorAll("#steps h2")].find((each) => each.checkVisibility());
    if (visible) visible.tabIndex = -1;
    return visible;
  }

  // Let the arrow keys move through the choices of a group, as in native forms.
  document.addEventListener("keydown", (event) => {
    const offset = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key], { target } = event;
    if (!offset || !target.matches("input[type=radio]")) return;
    const group = [...target.closest("fieldset, .block").querySelectorAll("input[type=radio]")];
    const next = group[(group.indexOf(target) + offset + group.length) % group.length];
    event.preventDefault();
    next.focus();
    next.click();
  });

  // Scroll new error messages into view.
  function showErrors() {
    const errors = [...document.querySelectorAll(".message [role=alert]:not([data-brought])")].filter((each) => each.checkVisibility());
    for (const each of errors) {
      each.dataset.brought = "";
      const { top, bottom } = each.getBoundingClientRect();
      if (top < 60 || bottom > innerHeight) each.scrollIntoView({ block: "center" });
    }
  }

  // Check a file before its upload, so that 2 GB that are not a video are rejected at once; folders and empty files too.
  const files = FILES_TAKEN;
  async function findProblem(file) {
    const insertName = (text) => text.replace("{name}", file.name);
    if (file.size > files.largest) return insertName(files.tooLarge);
    let head;
    try { head = new Uint8Array(await file.slice(0, files.head).arrayBuffer()); } catch { return insertName("{name} cannot be read; choose a file"); }
    if (!head.length) return insertName("{name} is empty; export it again");
    const hex = (offset, count) => [...head.slice(offset, offset + count)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const known = files.signatures.some(([offset, signature]) => hex(offset, signature.length / 2) === signature);
    return known || file.size <= files.small ? "" : insertName(files.noMedia);
  }

  // Show an error beside the field and hide the server's errors about earlier files.
  function showProblem(block, text) {
    block.parentElement.querySelectorAll(":scope > .complaint").forEach((each) => each.remove());
    for (const each of block.parentElement.querySelectorAll(".message [role=alert]")) each.style.display = "none";
    if (!text) return;
    const message = document.createElement("div"), list = document.createElement("ul"), line = document.createElement("li");
    message.className = "message complaint";
    message.setAttribute("role", "alert");
    list.className = "said fault";
    line.textContent = text;
    list.append(line);
    message.append(list);
    block.after(message);
    message.scrollIntoView({ block: "nearest" });
  }

  let uploadField = null; // the field of the next upload
  async function acceptFile(input, file) {
    const block = input.closest(".block"), problem = await findProblem(file);
    showProblem(block, problem);
    if (problem) { input.value = ""; return; }
    const transfer = new DataTransfer();
    transfer.items.add(file);
    input.files = transfer.files;
    uploadField = block;
    const change = new Event("change", { bubbles: true });
    change.checked = true;
    input.dispatchEvent(change);
  }
  document.addEventListener("change", (event) => {
    if (event.checked || !event.target.matches("#steps input[type=file]") || !event.target.files.length) return;
    event.stopImmediatePropagation();
    acceptFile(event.target, event.target.files[0]);
  }, true);
  document.addEventListener("drop", (event) => {
    const input = event.target.closest?.("#steps .block")?.querySelector("input[type=file]"), file = event.dataTransfer?.files[0];
    if (!input || !file) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    event.target.dispatchEvent(new DragEvent("dragleave", { bubbles: true }));
    acceptFile(input, file);
  }, true);

  // Add a button that cancels an upload; the field is then unchanged.
  const originalFetch = window.fetch;
  window.fetch = (address, options = {}) => {
    if (!uploadField || !String(address).includes("/upload?")) return originalFetch(address, options);
    const controller = new AbortController(), block = uploadField, button = document.createElement("button");
    uploadField = null;
    button.className = "cancel";
    button.textContent = "Cancel the upload";
    button.addEventListener("click", () => controller.abort());
    block.after(button);
    return originalFetch(address, { ...options, signal: controller.signal })
      .catch((error) => { if (controller.signal.aborted) return new Response("[]"); throw error; })
      .finally(() => button.remove());
  };

  addEventListener("popstate", ({ state }) => {
    const tab = tabs()[state?.step];
    if (!tab || tab.disabled || state.step === currentStep) return;
    returning = true;
    tab.click();
  });

  // Show the progress of a job in the tab's title.
  function updateTitle() {
    const bar = document.querySelector("#status .job progress"), job = document.querySelector("#status .job.running, #status .job.waiting");
    const share = job && bar && bar.hasAttribute("value") ? `${Math.floor(bar.value * 100)}% ` : job ? "… " : "";
    document.title = share + "lora-edit";
  }

  // Name every file field by its own label: Gradio gives all of them the same name.
  function nameFields() {
    for (const input of document.querySelectorAll("#steps .block input[type=file]")) {
      const button = input.closest("button"), label = input.closest(".block").querySelector("[data-testid=block-label]");
      const text = label && label.innerText.trim();
      if (button && text && button.getAttribute("aria-label") !== text) button.setAttribute("aria-label", text);
    }
  }

  const watch = (selector, update, options) => {
    new MutationObserver(update).observe(document.querySelector(selector), { subtree: true, ...options });
    update();
  };
  watch("#steps", updateHistory, { attributes: true, attributeFilter: ["aria-selected"] });
  watch("#steps", nameFields, { childList: true, characterData: true });
  watch("#steps", showErrors, { childList: true });
  watch("#status", updateTitle, { childList: true, attributes: true });
}
