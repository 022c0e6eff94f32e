// Numbers as people read them.

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const one = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export function rate(value) {
  if (value == null) return "–";
  return value >= 100 ? plain.format(value) : one.format(value);
}

export const count = (value) => (value == null ? "–" : plain.format(value));

export function milliseconds(value) {
  if (value == null) return "–";
  if (value >= 1000) return `${(value / 1000).toFixed(value >= 10000 ? 0 : 1)} s`;
  return `${value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)} ms`;
}

/** The share of `flow` that was no error, as text; `–` without requests. */
export function success(flow) {
  if (!flow?.count) return "–";
  const share = (100 * (flow.count - flow.errors)) / flow.count;
  // 99.99 must not be shown as 100.
  return share === 100 ? "100 %" : `${Math.min(share, 99.99).toFixed(share >= 99 ? 2 : 1)} %`;
}

export function age(seconds) {
  if (seconds == null) return "–";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

/** A word of the contract, such as `connect_failure`, with spaces. */
export const spaced = (word) => String(word ?? "").replaceAll("_", " ");

/** The time of day, as this machine has it. */
export function clock(seconds) {
  const time = new Date(seconds * 1000);
  return [time.getHours(), time.getMinutes(), time.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
}
