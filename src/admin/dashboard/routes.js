// Each route's share of the traffic: those that have failed within the last minute first, then the busiest.

import { html, useState } from "./preact.js";
import { Sparkline } from "./charts.js";
import { fare, keyOf } from "./history.js";
import { count, milliseconds, rate, spaced, success } from "./words.js";

/** Rows that are shown before somebody asks for all. */
const FEW = 12;

export function Routes({ history }) {
  const [all, setAll] = useState(false);
  const rows = history.last.interval.routes
    .map((row) => ({ row, key: keyOf(row), minute: history.routes.get(keyOf(row)) ?? [] }))
    .map((route) => ({ ...route, ...fare(route.minute) }))
    .toSorted((a, b) => (b.errors > 0) - (a.errors > 0) || b.row.ever - a.row.ever || a.key.localeCompare(b.key));
  const shown = all ? rows : rows.slice(0, FEW);
  return html`<section class="card" aria-labelledby="routes">
    <div class="title"><h2 id="routes">Routes</h2>
      ${rows.length > FEW && html`<div class="right"><button onClick=${() => setAll(!all)}>${all ? "fewer" : `all ${rows.length}`}</button></div>`}
    </div>
    ${rows.length === 0
      ? html`<p class="empty">No request has come yet.</p>`
      : html`<div class="scroll"><table>
          <thead><tr><th scope="col">Route</th><th scope="col" class="wide">To</th><th scope="col" class="wide">Last minute</th><th scope="col" class="n">Rate</th><th scope="col" class="n">Success</th><th scope="col" class="n wide">p50</th><th scope="col" class="n">p99</th><th scope="col" class="n wide">Ever</th></tr></thead>
          <tbody>${shown.map((route) => html`<${Row} key=${route.key} route=${route} />`)}</tbody>
        </table></div>`}
  </section>`;
}

/** Rate and latency are those of the last second; success, which a slow route has in few of them, that of the minute. */
function Row({ route }) {
  const { row, minute, errors, reason } = route;
  return html`<tr data-route=${row.route}>
    <td class="name">${row.route || "–"}<div class="sub">${row.listener}</div></td>
    <td class="wide">${row.upstream || "–"}</td>
    <td class="wide"><${Sparkline} values=${minute.map((row) => row.per_second)} /></td>
    <td class="n">${rate(row.per_second)}/s</td>
    <td class=${`n${errors ? " bad" : ""}`}>${success(route)}${reason && html`<div class="sub">${spaced(reason)}</div>`}</td>
    <td class="n wide">${milliseconds(row.ms?.p50)}</td>
    <td class="n">${milliseconds(row.ms?.p99)}</td>
    <td class="n wide">${count(row.ever)}</td>
  </tr>`;
}
