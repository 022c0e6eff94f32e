// Live requests as they pass. Nothing is asked of the proxy until somebody presses the button.

import { html, useEffect, useRef, useState } from "./preact.js";
import { follow } from "./stream.js";
import { clock, milliseconds, spaced } from "./words.js";

/** Lines that are kept. */
const LINES = 60;

export function Tap() {
  const [on, setOn] = useState(false);
  const [errors, setErrors] = useState(false);
  const [route, setRoute] = useState("");
  const [lines, setLines] = useState([]);
  const number = useRef(0);
  useEffect(() => {
    if (!on) return undefined;
    setLines([]);
    const query = new URLSearchParams();
    if (errors) query.set("errors", "true");
    if (route.trim()) query.set("route", route.trim());
    return follow(`tap?${query}`, (line) => line.code && setLines((before) => [{ ...line, number: ++number.current }, ...before].slice(0, LINES)));
  }, [on, errors, route]);
  return html`<section class="card tap" aria-labelledby="tap">
    <div class="title"><h2 id="tap">Tap</h2><span class="about">requests as they end</span>
      <div class="right">
        <label class="hidden" for="tap-route">Only this route</label>
        <input id="tap-route" placeholder="route" size="10" value=${route} onChange=${(event) => setRoute(event.target.value)} />
        <button class=${errors ? "on" : ""} aria-pressed=${errors} onClick=${() => setErrors(!errors)}>errors only</button>
        <button class=${on ? "on" : ""} aria-pressed=${on} onClick=${() => setOn(!on)}>${on ? "stop" : "watch"}</button>
      </div>
    </div>
    ${!on && lines.length === 0 && html`<p class="empty">Off. It costs nothing until you watch.</p>`}
    ${on && lines.length === 0 && html`<p class="empty">Waiting for a request…</p>`}
    ${lines.length > 0 &&
    html`<div class="scroll"><table>
      <thead><tr><th scope="col" class="wide">Began</th><th scope="col" class="n">Code</th><th scope="col">Request</th><th scope="col" class="wide">Route</th><th scope="col" class="wide">Endpoint</th><th scope="col" class="n">Took</th><th scope="col">Reason</th></tr></thead>
      <tbody>${lines.map(
        (line) => html`<tr key=${line.number}>
          <td class="wide number">${clock(line.time)}</td>
          <td class=${`n${line.reason || line.code >= 500 ? " bad" : ""}`}>${line.code}</td>
          <td class="path">${line.method} ${line.host ?? ""}${line.target}</td>
          <td class="wide">${line.route ?? "–"}</td>
          <td class="wide"><code>${line.endpoint ?? "–"}</code></td>
          <td class="n">${milliseconds(line.ms?.total)}</td>
          <td>${spaced(line.reason ?? "")}</td>
        </tr>`,
      )}</tbody>
    </table></div>`}
  </section>`;
}
