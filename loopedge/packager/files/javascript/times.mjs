// Times that follow a time by steps of a frequency, written as it is: numbers, dates and times of ISO 8601.

const STEPS_MS = { ms: 1, s: 1e3, min: 6e4, T: 6e4, h: 36e5, H: 36e5, D: 864e5, W: 7 * 864e5 };
const MONTHS = { M: 1, Q: 3, Y: 12, A: 12 };
const ISO = /^(\d{4})-(\d{2})(?:-(\d{2}))?(?:([ T])(\d{2}):(\d{2})(?::(\d{2}))?)?(Z|[+-]\d{2}:?\d{2})?$/;

/** Return the step of a model's table rows: that of its grid, or that of most of its rows; null where there is none. */
export function stepOf(task) {
  return task?.frequency ?? task?.step ?? null;
}

/**
 * Return `count` times that follow `last`, as texts; null where their step or their writing is not known here.
 *
 * step: a name as pandas has them: "h", "15min", "D", "B", "W", "MS", "ME", "QS", "YS", or a number.
 */
export function timesAhead(last, step, count) {
  if (last === undefined || last === null || !step) return null;
  const numbers = Array.from({ length: count }, (_, i) => i + 1);
  const text = String(last).trim();
  if (/^\d+(\.\d+)?$/.test(step)) {
    if (!/^-?\d+(\.\d+)?$/.test(text)) return null;
    const digits = Math.max(decimals(text), decimals(step));
    return numbers.map((each) => (Number(text) + each * Number(step)).toFixed(digits));
  }
  const written = ISO.exec(text);
  const next = written && stepper(step);
  if (!next) return null;
  const [, year, month, day, between, hour, minute, second] = written;
  const start = Date.UTC(year, month - 1, day ?? 1, hour ?? 0, minute ?? 0, second ?? 0);
  const parts = { day, between, second, offset: written[8] ?? "" };
  return numbers.map((each) => writtenLike(next(start, each), parts));
}

function decimals(text) {
  return text.split(".")[1]?.length ?? 0;
}

/**
 * Return what a step is: { unit: "ms" or "number", size }, { unit: "months", count, rest: "", "S" or "E" }, { unit: "B" }; null where it
 * is not known here.
 */
export function kindOf(step) {
  if (/^\d+(\.\d+)?$/.test(step ?? "")) return { unit: "number", size: Number(step) };
  if (step === "B") return { unit: "B" };
  const found = /^(\d*)([A-Za-z]+)$/.exec(step ?? "");
  if (!found) return null;
  const count = Number(found[1] || 1);
  if (STEPS_MS[found[2]]) return { unit: "ms", size: count * STEPS_MS[found[2]] };
  const [unit, rest] = [found[2][0], found[2].slice(1)];
  return MONTHS[unit] && ["", "S", "E"].includes(rest) ? { unit: "months", count: count * MONTHS[unit], rest } : null;
}

function stepper(step) {
  const kind = kindOf(step);
  if (!kind) return null;
  if (kind.unit === "B") return workingDays;
  if (kind.unit === "ms") return (start, steps) => start + steps * kind.size;
  return (start, steps) => {
    const time = new Date(start);
    const month = time.getUTCMonth() + steps * kind.count;
    const most = new Date(Date.UTC(time.getUTCFullYear(), month + 1, 0)).getUTCDate();
    const day = { "": time.getUTCDate(), S: 1, E: 31 }[kind.rest];
    return Date.UTC(time.getUTCFullYear(), month, Math.min(day, most)) + (start % 864e5 + 864e5) % 864e5;
  };
}

function workingDays(start, steps) {
  const time = new Date(start);
  for (let left = steps; left > 0; ) {
    time.setUTCDate(time.getUTCDate() + 1);
    if (time.getUTCDay() % 6) left -= 1;
  }
  return time.getTime();
}

function writtenLike(moment, { day, between, second, offset }) {
  const text = new Date(moment).toISOString();
  if (!day) return text.slice(0, 7);
  if (!between) return text.slice(0, 10) + offset;
  return text.slice(0, 10) + between + text.slice(11, second ? 19 : 16) + offset;
}
