// The stream of events: read with fetch and not with EventSource, which can send no token and does not tell a refusal from a broken connection.

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/** Calls `on(kind, data)` for each event until the stream ends or `signal` is aborted. Throws Refused, TypeError where nobody answers. */
export async function follow(headers, on, signal) {
  const answer = await fetch("live", { headers, signal, cache: "no-store" });
  if (!answer.ok) throw new Refused(answer.status, await sentence(answer));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = events.pop();
    for (const event of events) dispatch(event, on);
  }
}

function dispatch(text, on) {
  let kind = "message";
  let data = "";
  for (const line of text.split("\n")) {
    if (line.startsWith("event: ")) kind = line.slice(7);
    else if (line.startsWith("data: ")) data += line.slice(6);
  }
  if (data) on(kind, JSON.parse(data)); // a heartbeat is a comment
}

/** What an answer that is no success says is wrong. */
export async function sentence(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text).error ?? text;
  } catch {
    return text.trim() || `status ${answer.status}`;
  }
}
