// Curves: uPlot for the large ones, one SVG path for the small ones beside rows.

import { html, useEffect, useRef } from "./preact.js";
import { SECONDS } from "./history.js";
import { clock } from "./words.js";

const HEIGHT = 190;
/** Seconds that a chart shows at least. */
const LEAST = 30;

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * `series`: { label, color, fill?, format }. `data`: seconds since the epoch, then one list a series. `theme` changes
 * when colours do. What a screen reader hears is `summary`.
 */
export function Chart({ series, data, theme, summary }) {
  const place = useRef(null);
  const plot = useRef(null);
  useEffect(() => {
    const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const options = {
      width: place.current.clientWidth,
      height: HEIGHT,
      cursor: { y: false, points: { size: 6 } },
      legend: { live: true },
      // Where no pointer asks for a time, the legend tells the latest.
      hooks: { setData: [latest], setCursor: [(chart) => chart.cursor.idx == null && latest(chart)] },
      scales: { x: { time: true, range }, y: { range: (_, __, most) => [0, Math.max(most ?? 0, 1) * 1.1] } },
      axes: [
        { ...axis, space: 70, values: (_, ticks) => ticks.map((tick) => clock(tick)) },
        { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => series[0].format(tick).replace(/\.0+(?=\D|$)/, "")) },
      ],
      series: [
        { label: "Time", value: (_, time) => (time == null ? "–" : clock(time)) },
        ...series.map(({ label, color: name, fill, format }) => ({
          label,
          stroke: color(name),
          width: 1.75,
          fill: fill && color(fill),
          points: { show: false },
          spanGaps: false,
          value: (_, value) => (value == null ? "–" : format(value)),
        })),
      ],
    };
    plot.current = new globalThis.uPlot(options, data, place.current);
    const observer = new ResizeObserver(() => plot.current.setSize({ width: place.current.clientWidth, height: HEIGHT }));
    observer.observe(place.current);
    return () => {
      observer.disconnect();
      plot.current.destroy();
    };
  }, [theme]);
  useEffect(() => plot.current?.setData(data), [data]);
  return html`<div class="chart" role="img" aria-label=${summary} ref=${place}></div>`;
}

/** The seconds that a chart shows; before the first of them, those until now. */
function range(_, first, last) {
  const end = last ?? Date.now() / 1000;
  return [Math.max(Math.min(first ?? end, end - LEAST), end - SECONDS), end];
}

/** A curve without axes, scaled to its own highest point. */
export function Sparkline({ values, width = 110, height = 26 }) {
  if (values.length < 2) return html`<svg class="spark" width=${width} height=${height} aria-hidden="true"></svg>`;
  const most = Math.max(...values, 1e-9);
  const step = width / (values.length - 1);
  const points = values.map((value, at) => `${(at * step).toFixed(1)},${(height - 2 - (value / most) * (height - 4)).toFixed(1)}`);
  const line = `M${points.join("L")}`;
  return html`<svg class="spark" width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} aria-hidden="true">
    <path class="under" d=${`${line}L${width},${height}L0,${height}Z`} />
    <path class="over" d=${line} />
  </svg>`;
}

function latest(chart) {
  if (chart.cursor.idx == null && chart.data[0].length) chart.setLegend({ idx: chart.data[0].length - 1 }, false);
}
