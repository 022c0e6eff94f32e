// The configuration in force, and how it came to be.

import { html, useEffect, useState } from "./preact.js";
import { ask } from "./stream.js";

export function Configuration({ config }) {
  const [generations, setGenerations] = useState([]);
  useEffect(() => {
    // Asked for when a generation has come, and not every second.
    ask("config/history").then(async (response) => response.ok && setGenerations((await response.json()).generations)).catch(() => {});
  }, [config.generation]);
  return html`<section class="card" aria-labelledby="configuration">
    <div class="title"><h2 id="configuration">Configuration</h2>
      <span class="about">generation ${config.generation}, <code>${config.hash.slice(0, 8)}</code>, from ${config.source}</span>
      <div class="right"><a href="config" target="_blank">all of it</a></div>
    </div>
    ${!config.last_reload_successful && html`<p class="problem" data-refused="">The configuration read last was refused, and changed nothing. The log and <code>/config</code> say why.</p>`}
    ${config.override && html`<p class="empty">An override holds, <code>${config.override.slice(0, 8)}</code>.</p>`}
    ${generations.length > 0 &&
    html`<div class="scroll"><table>
      <thead><tr><th scope="col" class="n">No.</th><th scope="col">Since</th><th scope="col">What it changed</th></tr></thead>
      <tbody>${generations.map((generation) => html`<tr data-generation=${generation.generation}>
        <td class="n">${generation.generation}</td>
        <td>${new Date(generation.time).toLocaleTimeString()}</td>
        <td><${Changes} generation=${generation} />${generation.rejected ? " (gone back from)" : ""}${generation.probation ? ` (probation: ${generation.probation})` : ""}<div class="sub">${generation.source}</div></td>
      </tr>`)}</tbody>
    </table></div>`}
  </section>`;
}

/** What it changed: in a few words, and line by line for whoever asks. */
function Changes({ generation }) {
  if (!generation.diff?.length) return generation.changes;
  return html`<details><summary>${generation.changes}</summary><pre>${generation.diff.join("\n")}</pre></details>`;
}
