// Follows a stream of server-sent events with fetch instead of EventSource, which cannot carry the admin's token.

const TOKEN = "outrigger-admin-token";

/** The token that was typed in, kept for this tab only. */
export const token = {
  read: () => sessionStorage.getItem(TOKEN) ?? "",
  write: (value) => sessionStorage.setItem(TOKEN, value),
};

/** Fetches something of the admin's, with the token where there is one. */
export function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (token.read()) headers.set("authorization", `Bearer ${token.read()}`);
  return fetch(path, { ...options, headers });
}

/**
 * Calls `onEvent` with each event's JSON until the returned function is called. `onState` hears "live", "lost" (tried
 * again after a moment) or "denied" (the admin wants a token). A stream that says nothing for `silence` ms is lost.
 */
export function follow(path, onEvent, onState = () => {}, silence = Infinity) {
  const ended = new AbortController();
  (async () => {
    let wait = 250;
    while (!ended.signal.aborted) {
      try {
        const response = await ask(path, { signal: ended.signal, headers: { accept: "text/event-stream" } });
        if (response.status === 401 || response.status === 403) {
          onState("denied");
          return;
        }
        if (!response.ok) throw new Error(`${response.status}`);
        onState("live");
        wait = 250;
        await read(response.body, onEvent, silence);
      } catch (error) {
        if (ended.signal.aborted) return;
      }
      onState("lost");
      await new Promise((done) => setTimeout(done, wait));
      wait = Math.min(wait * 2, 4000);
    }
  })();
  return () => ended.abort();
}

async function read(body, onEvent, silence) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    // What is cancelled is done.
    const watch = silence < Infinity && setTimeout(() => reader.cancel(), silence);
    const { done, value } = await reader.read();
    clearTimeout(watch);
    if (done) return;
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const data = text.slice(0, end).split("\n").filter((line) => line.startsWith("data:"));
      text = text.slice(end + 2);
      if (data.length) onEvent(JSON.parse(data.map((line) => line.slice(5).trimStart()).join("\n")));
    }
  }
}
