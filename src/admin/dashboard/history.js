// What the page remembers of the events: five minutes of the whole, a minute of each route, and why requests failed.

/** Seconds of the charts. */
export const SECONDS = 300;
/** Seconds that are remembered of each route. */
export const RECENT = 60;

export function empty() {
  return { last: null, time: [], rate: [], errors: [], p50: [], p90: [], p99: [], routes: new Map(), reasons: [] };
}

/** The history with one more event; a new object, so that what shows it notices. */
export function add(history, event) {
  const { interval } = event;
  // The first event of a stream tells sums since the start, and no rates.
  if (!(interval.seconds > 0)) return { ...history, last: event };
  const { total } = interval;
  const push = (list, value) => [...list.slice(-(SECONDS - 1)), value];
  const routes = new Map();
  for (const row of interval.routes) {
    const key = keyOf(row);
    const before = history.routes.get(key) ?? [];
    routes.set(key, [...before.slice(-(RECENT - 1)), row]);
  }
  return {
    last: event,
    time: push(history.time, event.time),
    rate: push(history.rate, total.per_second),
    errors: push(history.errors, total.count ? (total.errors / interval.seconds) : 0),
    p50: push(history.p50, total.ms?.p50 ?? null),
    p90: push(history.p90, total.ms?.p90 ?? null),
    p99: push(history.p99, total.ms?.p99 ?? null),
    routes,
    reasons: push(history.reasons, why(total)),
  };
}

/** How a route's requests have fared in these rows: their number, the errors among them, and their most frequent reason. */
export function fare(rows) {
  const sum = (key) => rows.reduce((total, row) => total + row[key], 0);
  return { count: sum("count"), errors: sum("errors"), reason: ranked(rows.map((row) => row.reasons))[0]?.[0] };
}

/** Failures by reason; those without one of ours are the endpoints' own answers. */
function why(total) {
  const explained = Object.values(total.reasons).reduce((sum, count) => sum + count, 0);
  const answers = total.errors - explained;
  return answers > 0 ? { ...total.reasons, failing_answers_of_endpoints: answers } : total.reasons;
}

export const keyOf = (row) => `${row.listener}\n${row.route}\n${row.upstream}`;

/** Why requests failed within the history: pairs of reason and count, the most frequent first. */
export const failures = (history) => ranked(history.reasons);

function ranked(all) {
  const sums = new Map();
  for (const reasons of all) {
    for (const [reason, count] of Object.entries(reasons)) sums.set(reason, (sums.get(reason) ?? 0) + count);
  }
  return [...sums].sort((a, b) => b[1] - a[1]);
}
