// Each route's share of the traffic, the busiest first.

import { html, useState } from "./preact.js";
import { Sparkline } from "./charts.js";
import { keyOf } from "./history.js";
import { count, milliseconds, rate, spaced, success } from "./words.js";

/** Rows that are shown before somebody asks for all. */
const FEW = 12;

export function Routes({ history }) {
  const [all, setAll] = useState(false);
  const rows = history.last.interval.routes.toSorted((a, b) => b.ever - a.ever || keyOf(a).localeCompare(keyOf(b)));
  const shown = all ? rows : rows.slice(0, FEW);
  return html`<section class="card" aria-labelledby="routes">
    <div class="title"><h2 id="routes">Routes</h2>
      ${rows.length > FEW && html`<div class="right"><button onClick=${() => setAll(!all)}>${all ? "fewer" : `all ${rows.length}`}</button></div>`}
    </div>
    ${rows.length === 0
      ? html`<p class="empty">No request has come yet.</p>`
      : html`<div class="scroll"><table>
          <thead><tr><th scope="col">Route</th><th scope="col" class="wide">To</th><th scope="col" class="wide">Last minute</th><th scope="col" class="n">Rate</th><th scope="col" class="n">Success</th><th scope="col" class="n wide">p50</th><th scope="col" class="n">p99</th><th scope="col" class="n wide">Ever</th></tr></thead>
          <tbody>${shown.map((row) => html`<${Row} key=${keyOf(row)} row=${row} values=${history.routes.get(keyOf(row)) ?? []} />`)}</tbody>
        </table></div>`}
  </section>`;
}

function Row({ row, values }) {
  const why = Object.entries(row.reasons).sort((a, b) => b[1] - a[1])[0];
  return html`<tr data-route=${row.route}>
    <td class="name">${row.route || "–"}<div class="sub">${row.listener}</div></td>
    <td class="wide">${row.upstream || "–"}</td>
    <td class="wide"><${Sparkline} values=${values} /></td>
    <td class="n">${rate(row.per_second)}/s</td>
    <td class=${`n${row.errors ? " bad" : ""}`}>${success(row)}${why && html`<div class="sub">${spaced(why[0])}</div>`}</td>
    <td class="n wide">${milliseconds(row.ms?.p50)}</td>
    <td class="n">${milliseconds(row.ms?.p99)}</td>
    <td class="n wide">${count(row.ever)}</td>
  </tr>`;
}
