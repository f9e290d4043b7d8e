// What happens where table rows are missing between two times: as in training, by what the model remembers of its table.
// Where this page cannot know what training would do, it says that it did not look.

import { kindOf, stepOf, timesAhead } from "../javascript/times.mjs";

const HOUR = 36e5;
const DAY = 24 * HOUR;
const SAME = 0.05; // of a step: how far a longer one may be off
const HOLIDAYS = 2; // working days in a row that may be missing
const KNOWN = 0.5; // share of the rows that must be one step behind the row before
const MOST = 5000; // table rows that are inserted into one gap

const OFFSET = /(Z|[+-]\d{2}:?\d{2})$/;

/** Return a time as { at, slack }: a number, milliseconds of dates; NaN where its writing is not known here. Local times slack by an hour. */
export function momentOf(text) {
  if (/^-?\d+(\.\d+)?$/.test(text)) return { at: Number(text), slack: 0 };
  if (!/^\d{4}-\d{2}/.test(text)) return { at: NaN, slack: HOUR };
  const zoned = text.length <= 10 || OFFSET.test(text) ? text : `${text}Z`; // else it would be of the viewer's zone
  return { at: Date.parse(zoned.replace(" ", "T")), slack: HOUR };
}

/**
 * Return the last `context` table rows of each series, without what stands before a gap.
 *
 * series: [{ name, rows, times }], rows of numbers, null where one is missing; times as texts, null where the table has none.
 * task: what the model remembers: `frequency` inserts rows without numbers, `gaps` says "split", "refuse" or "cross".
 *
 * Of each series it gives rows and times; gap: [earlier, later], where its window begins behind one; inserted: how many rows were
 * made up; checked: false where no gap was looked for; refused: why the series has no window, else null.
 */
export function lastWindows(series, context, task) {
  const rule = task.frequency ? "fill" : task.gaps ?? "cross";
  const known = rule === "cross" ? series.map(() => null) : placesOfAll(series, stepOf(task), rule, task);
  return series.map((one, i) => {
    const whole = { rows: one.rows.slice(-context), times: one.times?.slice(-context) ?? null };
    const found = { ...one, ...whole, lastTime: one.times?.at(-1), gap: null, inserted: 0, refused: null };
    if (rule === "cross" || !one.times || one.times.length < 2) return { ...found, checked: true };
    if (!known) return { ...found, checked: false };
    return { ...found, ...cut(one, known[i], context, rule, stepOf(task)), checked: true };
  });
}

/** Cut the last window of a series whose places on the grid of steps are known. */
function cut({ rows, times }, places, context, rule, step) {
  const most = 1 + SAME + (step === "B" ? HOLIDAYS : 0);
  const found = { rows: [rows.at(-1)], times: [times.at(-1)], inserted: 0, gap: null, refused: null };
  for (let i = rows.length - 1; i > 0 && found.rows.length < context; i--) {
    const [earlier, later] = [times[i - 1], times[i]];
    const length = lengthOf(places[i - 1], places[i]);
    if (length === 0) return { ...found, refused: `the time ${later} stands twice` };
    const filled = [];
    if (rule === "fill") {
      if (!onGrid(length) || !places[i].exact || !places[i - 1].exact) {
        return { ...found, refused: `the times ${earlier} and ${later} are no steps of ${step} apart, which the model was trained on` };
      }
      const missing = Math.round(length) - 1;
      if (missing > MOST) return { ...found, refused: `${missing} table rows are missing between ${earlier} and ${later}: write them into the table` };
      if (missing) filled.push(...timesAhead(earlier, step, missing).slice(-(context - found.rows.length)));
    } else if (length > most) {
      const refused = rule === "refuse" ? `table rows are missing between ${earlier} and ${later}, and the training refused gaps: write them into the table` : null;
      return { ...found, gap: [earlier, later], refused };
    }
    found.rows.unshift(...filled.map(() => rows[i].map(() => null)));
    found.times.unshift(...filled);
    found.inserted += filled.length;
    if (found.rows.length === context) break;
    found.rows.unshift(rows[i - 1]);
    found.times.unshift(earlier);
  }
  return found;
}

const onGrid = (length) => length > 0 && Math.abs(length - Math.round(length)) <= 1e-6;

/** Return how many steps one place is behind another. */
function lengthOf(earlier, later) {
  return earlier.exact && later.exact ? later.whole - earlier.whole : later.fine - earlier.fine;
}

/**
 * Return where each time stands, in steps; null where the step or the writing of a time is not known here, or where less than half
 * of the rows are one step behind the row before: training would look for another step then.
 */
function placesOfAll(series, step, rule, task) {
  const kind = kindOf(step);
  if (!kind) return null;
  const all = [];
  let [alike, together] = [0, 0];
  for (const { times } of series) {
    const texts = (times ?? []).map((text) => String(text).trim());
    const moments = texts.map((text) => momentOf(text).at);
    if (moments.some(Number.isNaN) || texts.some((text) => /^-?\d+(\.\d+)?$/.test(text) !== (kind.unit === "number"))) return null;
    const daily = kind.unit !== "ms" || kind.size % DAY === 0;
    if (kind.unit !== "number" && daily && texts.some((text) => text.length > 10 && OFFSET.test(text))) return null; // days of a zone
    if (!daily && task.form?.timezone) return null; // hours that clocks leave out or repeat
    const places = placesOf(moments, kind);
    const lengths = places.slice(1).map((place, i) => lengthOf(places[i], place));
    alike += lengths.filter((length) => Math.abs(length - 1) <= 1e-6).length;
    together += lengths.length;
    all.push(places);
  }
  return rule === "fill" || alike >= KNOWN * together ? all : null;
}

/** Return { whole, exact, fine } of each moment: steps since some time, whether it stands on the grid, and steps with their fraction. */
function placesOf(moments, kind) {
  if (kind.unit === "number" || kind.unit === "ms") {
    return moments.map((at) => ({ whole: (at - moments[0]) / kind.size, exact: true, fine: (at - moments[0]) / kind.size }));
  }
  const clock = (at) => ((at % DAY) + DAY) % DAY;
  if (kind.unit === "B") {
    return moments.map((at) => {
      const day = Math.floor(at / DAY) + 3; // 1970 began on a Thursday
      const weekday = ((day % 7) + 7) % 7;
      const whole = 5 * Math.floor(day / 7) + Math.min(weekday, 5);
      const exact = weekday < 5 && clock(at) === clock(moments[0]);
      return { whole, exact, fine: whole + (weekday < 5 ? clock(at) / DAY : 0) };
    });
  }
  const dates = moments.map((at) => new Date(at));
  const anchor = { S: 1, E: 31, "": Math.max(...dates.map((date) => date.getUTCDate())) }[kind.rest];
  return dates.map((date, i) => {
    const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
    const last = new Date(Date.UTC(year, month + 1, 0)).getUTCDate();
    const whole = (12 * year + month) / kind.count;
    const exact = date.getUTCDate() === Math.min(anchor, last) && clock(moments[i]) === clock(moments[0]);
    return { whole, exact, fine: whole + (moments[i] - Date.UTC(year, month, 1)) / (31 * DAY) / kind.count };
  });
}
