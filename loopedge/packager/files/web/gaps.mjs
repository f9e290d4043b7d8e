// What happens where table rows are missing between two times: as in training, by what the model remembers of its table.

import { stepOf, timesAhead } from "../javascript/times.mjs";

const HOUR = 36e5;
const HOLIDAYS = 2; // in a row are no gap of working days
const MOST = 10000; // rows that a gap is filled with

/** Return a time as { at, slack }: a number, NaN where it is written in a way that is not known here. Local times slack by an hour. */
export function momentOf(text) {
  if (/^-?\d+(\.\d+)?$/.test(text)) return { at: Number(text), slack: 0 };
  return { at: /^\d{4}-\d{2}/.test(text) ? Date.parse(text.replace(" ", "T")) : NaN, slack: HOUR };
}

/**
 * Return the last `context` table rows of a series as { rows, times, checked }, without what stands before a gap.
 *
 * rows: of numbers, null where one is missing. times: as texts; null where the table has none. task: what the model remembers:
 * `frequency` inserts rows without numbers, `gaps` says "split", "refuse" or "cross". checked: false where the step or the
 * writing of the times is not known here, so that no gap was looked for.
 */
export function lastWindow(rows, times, context, task) {
  const whole = { rows: rows.slice(-context), times: times?.slice(-context) ?? null, checked: true };
  const rule = task.frequency ? "fill" : task.gaps ?? "cross";
  if (!times || rule === "cross" || times.length < 2) return whole;
  const step = stepOf(task);
  const found = { rows: [rows.at(-1)], times: [times.at(-1)], checked: true };
  for (let i = rows.length - 1; i > 0 && found.rows.length < context; i--) {
    const between = missing(times[i - 1], times[i], step, rule === "fill" ? MOST : 0, task);
    if (between === null) return { ...whole, checked: false };
    if (between === GAP) {
      const where = `between ${times[i - 1]} and ${times[i]}`;
      if (rule === "fill") throw new Error(`the times ${where} are no steps of ${step}, which the model was trained on`);
      if (rule === "refuse") throw new Error(`table rows are missing ${where}, and the training refused gaps: write them into the table`);
      break;
    }
    found.rows.unshift(rows[i - 1], ...between.map(() => rows[i].map(() => null)));
    found.times.unshift(times[i - 1], ...between);
  }
  return { ...found, rows: found.rows.slice(-context), times: found.times.slice(-context) };
}

const GAP = Symbol("gap");

/** Return the times that are missing between two, none where the second follows the first; GAP where more than `most` are. */
function missing(earlier, later, step, most, task) {
  const ahead = timesAhead(earlier, step, 1 + (most || (step === "B" ? HOLIDAYS : 0)));
  const wanted = momentOf(String(later).trim());
  if (ahead === null || Number.isNaN(wanted.at)) return null;
  const monthly = /^\d*[MQYA][SE]?$/.test(step);
  const slack = task.form?.timezone ? HOUR : Math.abs(wanted.at) * 1e-12;
  const place = ahead.findIndex((time) => {
    if (monthly) return time.slice(0, 7) === String(later).trim().slice(0, 7);
    return Math.abs(momentOf(time).at - wanted.at) <= slack;
  });
  if (place < 0) return GAP;
  return most ? ahead.slice(0, place) : [];
}
