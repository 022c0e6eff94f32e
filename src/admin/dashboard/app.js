// The page: follows /events and lays the panels out. Each panel is a file beside this one.

import { html, render, useEffect, useLayoutEffect, useReducer, useState } from "./preact.js";
import { add, empty } from "./history.js";
import { follow, token } from "./stream.js";
import { Configuration } from "./configuration.js";
import { Failures, Tiles, Traffic } from "./traffic.js";
import { Routes } from "./routes.js";
import { Tap } from "./tap.js";
import { Upstreams } from "./upstreams.js";

/** An event comes each second: a proxy that says nothing for so long, in ms, hangs or is gone, whatever the connection says. */
const SILENCE = 4000;

const THEMES = ["auto", "light", "dark"];

function App() {
  const [history, event] = useReducer(add, undefined, empty);
  const [connection, setConnection] = useState("connecting");
  const [attempt, setAttempt] = useState(0);
  const [theme, setTheme] = useState(localStorage.getItem("outrigger-theme") ?? "auto");
  const dark = useSystemIsDark();
  useEffect(() => follow("events", event, setConnection, SILENCE), [attempt]);
  // Before the effects of the panels: charts ask the page for its colours.
  useLayoutEffect(() => {
    localStorage.setItem("outrigger-theme", theme);
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  }, [theme]);
  if (connection === "denied") return html`<${Denied} again=${() => setAttempt(attempt + 1)} />`;
  const { last } = history;
  return html`
    <${Header} last=${last} connection=${connection} theme=${theme} setTheme=${setTheme} />
    <main id="main">
      ${last
        ? html`
            <${Warnings} warnings=${last.warnings} />
            <${Tiles} history=${history} />
            <${Traffic} history=${history} theme=${`${theme} ${dark}`} />
            <${Routes} history=${history} />
            <${Upstreams} last=${last} />
            <div class="two"><${Failures} history=${history} /><${Configuration} config=${last.config} /></div>
            <${Tap} />`
        : html`<p class="empty">Waiting for the first numbers…</p>`}
    </main>`;
}

/** Whether the system asks for dark colours, now and when that changes. */
function useSystemIsDark() {
  const [query] = useState(() => matchMedia("(prefers-color-scheme: dark)"));
  const [dark, setDark] = useState(query.matches);
  useEffect(() => {
    const listen = () => setDark(query.matches);
    query.addEventListener("change", listen);
    return () => query.removeEventListener("change", listen);
  }, [query]);
  return dark;
}

function Header({ last, connection, theme, setTheme }) {
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  const state =
    connection !== "live"
      ? ["bad", connection === "connecting" ? "connecting" : "connection lost"]
      : last?.ready
        ? [last.warnings.length ? "warn" : "good", last.warnings.length ? "ready, with warnings" : "ready"]
        : ["bad", last?.phase ?? "…"];
  return html`<header>
    <h1><img src="dashboard/icon.svg" alt="" />Outrigger${last?.service && html`<span>· ${last.service}</span>`}</h1>
    <span class=${`pill ${state[0]}`} role="status">${state[1]}</span>
    ${last &&
    html`<div class="facts">
      <span>generation <b>${last.config.generation}</b></span>
      <span>${last.workers} worker${last.workers === 1 ? "" : "s"}</span>
      <span>version ${last.version}</span>
    </div>`}
    <div class="right">
      <button onClick=${() => setTheme(next)} aria-label=${`Colours: ${theme}. Change to ${next}`}>${{ auto: "◐", light: "☀", dark: "☾" }[theme]} ${theme}</button>
    </div>
  </header>`;
}

function Warnings({ warnings }) {
  if (!warnings.length) return null;
  return html`<section class="card warnings" aria-labelledby="warnings">
    <h2 id="warnings">Warnings</h2>
    <ul>${warnings.map((warning) => html`<li>${warning}</li>`)}</ul>
  </section>`;
}

function Denied({ again }) {
  const submit = (event) => {
    event.preventDefault();
    token.write(event.target.elements.token.value.trim());
    again();
  };
  return html`<main id="main"><section class="card denied">
    <h2>This admin wants its token</h2>
    <p class="empty">It is what <code>admin.token_file</code> holds. It stays in this tab.</p>
    <form onSubmit=${submit}><label class="hidden" for="token">Token</label><input id="token" name="token" type="password" autocomplete="off" /><button>Open</button></form>
  </section></main>`;
}

render(html`<${App} />`, document.getElementById("root"));
