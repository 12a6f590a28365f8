// What the page does by itself: sliders under the keyboard, the steps in the browser's history, a job's share in the tab's title, fields' names.
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
    // The button that led here is gone: the keyboard goes on at the step, which screen readers then name.
    setTimeout(() => { if (acted && (document.activeElement === document.body || !document.activeElement.checkVisibility())) every[now].focus(); }, 100);
  }

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
  watch("#status", tell, { childList: true, attributes: true });
}
