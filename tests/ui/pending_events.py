"""Whether a page waits for its server, for browser tests: Gradio itself does not tell."""

COUNT_PENDING_EVENTS = r"""(() => {
  const pending = new Set(), answered = new Set(), originalFetch = window.fetch;
  let requests = 0, calmFrames = 0;
  const answer = (event) => { if (!pending.delete(event)) answered.add(event); };
  async function follow(stream) {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      if (!value.includes("\n")) continue; // a film has megabytes in one line
      const lines = text.split("\n");
      text = lines.pop();
      for (const line of lines) if (line.includes('"process_completed"')) answer(/"event_id": ?"(\w+)"/.exec(line)[1]);
    }
  }
  window.fetch = async (address, options) => {
    const url = address.url || String(address), isEvent = url.includes("/queue/join");
    if (!isEvent && !url.includes("/upload?")) {
      const response = await originalFetch(address, options);
      if (!url.includes("/queue/data")) return response;
      const [own, copy] = response.body.tee();
      follow(copy).catch(() => {});
      return new Response(own, response);
    }
    requests += 1;
    try {
      const response = await originalFetch(address, options), event = isEvent && (await response.clone().json()).event_id;
      if (event && !answered.delete(event)) pending.add(event);
      return response;
    } finally { requests -= 1; }
  };
  const count = () => { calmFrames = requests || pending.size ? 0 : calmFrames + 1; requestAnimationFrame(count); };
  requestAnimationFrame(count);
  window.startSettling = () => { calmFrames = 0; };
  window.isSettled = () => calmFrames > 5; // one answer may start another event, a few tasks later
})()"""
"""Script: counts the events that a page sent to the server and whose answers it has not received."""
