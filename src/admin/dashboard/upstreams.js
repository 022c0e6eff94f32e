// Upstreams and their endpoints: who is used, who is not and why, and what the registry last said.

import { html, useState } from "./preact.js";
import { age, count, milliseconds, rate, spaced } from "./words.js";

/** Endpoints of an upstream that are shown before somebody asks for all; those with a problem come first. */
const FEW = 8;

export function Upstreams({ last }) {
  const flows = new Map(last.interval.upstreams.map((flow) => [flow.name, flow]));
  return html`<section class="card" aria-labelledby="upstreams">
    <div class="title"><h2 id="upstreams">Upstreams</h2></div>
    ${last.upstreams.length === 0 && html`<p class="empty">None.</p>`}
    ${last.upstreams.map((upstream) => html`<${Upstream} key=${upstream.name} upstream=${upstream} flow=${flows.get(upstream.name)} />`)}
  </section>`;
}

function Upstream({ upstream, flow }) {
  const [all, setAll] = useState(false);
  const endpoints = upstream.endpoints.toSorted((a, b) => isWell(a) - isWell(b));
  const shown = all ? endpoints : endpoints.slice(0, FEW);
  const breaker = upstream.circuit_breaker?.state;
  const { discovery, connections, limits } = upstream;
  return html`<div class="upstream" data-upstream=${upstream.name}>
    <div class="head">
      <h3>${upstream.name}</h3>
      ${breaker && html`<span class=${`pill ${breaker === "closed" ? "good" : breaker === "open" ? "bad" : "warn"}`}>breaker ${spaced(breaker)}</span>`}
      <div class="facts">
        <span>${rate(flow?.per_second ?? 0)} attempts/s</span>
        ${flow?.ms && html`<span>p50 ${milliseconds(flow.ms.p50)}</span><span>p99 ${milliseconds(flow.ms.p99)}</span>`}
        <span>${count(connections.open)} connections, ${count(connections.idle)} idle</span>
        <span class=${limits.requests.used >= limits.requests.max ? "bad-text" : ""}>${count(limits.requests.used)} of ${count(limits.requests.max)} requests</span>
        ${limits.waiting.used > 0 && html`<span class="bad-text">${count(limits.waiting.used)} waiting</span>`}
        ${discovery?.source && html`<span>by ${discovery.source}</span>`}
        ${discovery?.answered && html`<span>answered ${age(discovery.age_seconds)} ago${discovery.updates > 1 ? `, ${count(discovery.updates)} updates` : ""}</span>`}
      </div>
    </div>
    ${discovery?.error && html`<p class="problem">Discovery: ${discovery.error}${discovery.age_seconds != null ? ` (what was known ${age(discovery.age_seconds)} ago holds)` : ""}</p>`}
    ${discovery?.kept_for_seconds != null && html`<p class="problem">Its source does not name all of these. Those known before are kept for ${age(discovery.kept_for_seconds)}.</p>`}
    ${discovery?.answered && endpoints.length === 0 && html`<p class="problem">Its source names no endpoint.</p>`}
    ${discovery && !discovery.answered && !discovery.error && html`<p class="empty">Nothing has been heard of its endpoints yet.</p>`}
    ${endpoints.length > 0 &&
    html`<div class="scroll"><table>
      <thead><tr><th scope="col">Endpoint</th><th scope="col">State</th><th scope="col" class="n wide">Weight</th><th scope="col" class="n">In flight</th><th scope="col" class="n wide">Attempts</th><th scope="col" class="n">Failed</th></tr></thead>
      <tbody>${shown.map((endpoint) => html`<${Endpoint} key=${endpoint.address} endpoint=${endpoint} />`)}</tbody>
    </table></div>`}
    ${endpoints.length > FEW && html`<button onClick=${() => setAll(!all)}>${all ? "fewer" : `all ${endpoints.length} endpoints`}</button>`}
  </div>`;
}

/** Why it is left out. */
function why({ health, ejection }) {
  const ejected = ejection?.seconds_left != null && `${CAUSES[ejection.cause] ?? "it failed"}; back in ${age(Math.ceil(ejection.seconds_left))}`;
  return [health?.error?.replace(/^\w+(?=:)/, spaced), ejected].filter(Boolean);
}

/** Why endpoints are ejected: the words of the metric, for people. */
const CAUSES = { consecutive: "failures in a row", failure_ratio: "too many failures", success_rate: "worse than the others" };

const isWell = (endpoint) => Number(endpoint.state === "ready" || endpoint.state === "healthy");

function Endpoint({ endpoint }) {
  const kind = isWell(endpoint) ? "good" : /warm|slow|unknown/.test(endpoint.state) ? "warn" : "bad";
  return html`<tr data-endpoint=${endpoint.address}>
    <td><code>${endpoint.address}</code>${endpoint.zone && html`<div class="sub">${endpoint.zone}</div>`}</td>
    <td><span class=${`pill ${kind}`}>${spaced(endpoint.state)}</span>${why(endpoint).map((text) => html`<div class="sub">${text}</div>`)}</td>
    <td class="n wide">${count(endpoint.weight)}</td>
    <td class="n">${count(endpoint.in_flight)}</td>
    <td class="n wide">${count(endpoint.requests)}</td>
    <td class=${`n${endpoint.failures ? " bad" : ""}`}>${count(endpoint.failures)}</td>
  </tr>`;
}
