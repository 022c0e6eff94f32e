// How the whole stands: the numbers of this second, five minutes of rate and latency, and why requests failed.

import { html } from "./preact.js";
import { Chart } from "./charts.js";
import { SECONDS, failures } from "./history.js";
import { count, milliseconds, rate, spaced, success } from "./words.js";

/** The first event of a stream tells sums since the start: of this second, nothing is known yet. */
const now = ({ last: { interval } }) => (interval.seconds > 0 ? interval.total : {});

/** How far back the page remembers. */
const span = ({ time }) => (time.length < SECONDS ? "since this page was opened" : "the last five minutes");

export function Tiles({ history }) {
  const { interval } = history.last;
  const total = now(history);
  const inFlight = interval.listeners.reduce((sum, listener) => sum + listener.in_flight, 0);
  const connections = interval.listeners.reduce((sum, listener) => sum + listener.connections, 0);
  const tiles = [
    ["Requests", rate(total.per_second), "/s"],
    ["Success", success(total), "", total.errors > 0],
    ["Latency p50", milliseconds(total.ms?.p50), ""],
    ["Latency p99", milliseconds(total.ms?.p99), ""],
    ["In flight", count(inFlight), ""],
    ["Connections", count(connections), ""],
  ];
  return html`<section class="tiles" aria-label="Now">
    ${tiles.map(
      ([name, value, unit, bad]) => html`<div class=${`card tile${bad ? " bad" : ""}`}>
        <div class="name">${name}</div>
        <div class="number" data-tile=${name}>${value}${unit && html`<small>${unit}</small>`}</div>
      </div>`,
    )}
  </section>`;
}

const RATE = [
  { label: "requests", color: "--accent", fill: "--accent-under", format: (value) => `${rate(value)}/s` },
  { label: "errors", color: "--bad", fill: "--bad-under", format: (value) => `${rate(value)}/s` },
];
const LATENCY = [
  { label: "p50", color: "--accent", format: milliseconds },
  { label: "p90", color: "--second", format: milliseconds },
  { label: "p99", color: "--third", format: milliseconds },
];

export function Traffic({ history, theme }) {
  const { time, rate: rates, errors, p50, p90, p99 } = history;
  const total = now(history);
  return html`<div class="two">
    <section class="card" aria-labelledby="rate">
      <div class="title"><h2 id="rate">Requests a second</h2><span class="about">${span(history)}</span></div>
      <${Chart} series=${RATE} data=${[time, rates, errors]} theme=${theme} summary=${`Now ${rate(total.per_second)} requests a second, success ${success(total)}`} />
    </section>
    <section class="card" aria-labelledby="latency">
      <div class="title"><h2 id="latency">Latency</h2><span class="about">first byte in to last byte out</span></div>
      <${Chart} series=${LATENCY} data=${[time, p50, p90, p99]} theme=${theme} summary=${`Now half of the requests take at most ${milliseconds(total.ms?.p50)}, 99 of 100 at most ${milliseconds(total.ms?.p99)}`} />
    </section>
  </div>`;
}

export function Failures({ history }) {
  const rows = failures(history).slice(0, 12);
  const most = rows[0]?.[1];
  return html`<section class="card" aria-labelledby="failures">
    <div class="title"><h2 id="failures">Why requests failed</h2><span class="about">by reason, ${span(history)}</span></div>
    ${rows.length === 0
      ? html`<p class="empty">${history.time.length ? "None did." : "–"}</p>`
      : html`<div class="bars">
          ${rows.map(
            ([reason, number]) => html`<div class="bar" data-reason=${reason}>
              <span>${spaced(reason)}</span>
              <span class="track"><i style=${{ width: `${(100 * number) / most}%` }}></i></span>
              <b class="number">${count(number)}</b>
            </div>`,
          )}
        </div>`}
  </section>`;
}
