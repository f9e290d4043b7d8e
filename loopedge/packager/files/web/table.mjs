// Reads a table that somebody chooses: a CSV whose first line names the columns, the oldest table row first.

import { lastWindows, momentOf } from "./gaps.mjs";

/**
 * Return the series of a table as { series, leftOut }: the last window of each, as gaps.mjs describes it, and of those that training
 * would have refused why.
 *
 * table: columns and context of the model. task: what it remembers of the table that it was trained on.
 */
export function readTable(text, table, task) {
  const delimiter = task.form?.delimiter ?? delimiterOf(text);
  const lines = cellsOf(text, delimiter);
  const header = lines.shift()?.map((name) => name.trim()) ?? [];
  const absent = table.columns.filter((name) => !header.includes(name));
  if (absent.length) throw new Error(`the table lacks ${absent.join(", ")}; its first line must name ${table.columns.join(", ")}`);
  const places = table.columns.map((name) => header.indexOf(name));
  const timePlace = header.indexOf(task.time_column ?? "");
  const groupPlace = header.indexOf(task.group ?? "");
  const series = new Map();
  for (const cells of lines) {
    const name = groupPlace < 0 ? "" : cells[groupPlace];
    if (!series.has(name)) series.set(name, { name, rows: [], times: timePlace < 0 ? null : [] });
    const one = series.get(name);
    one.rows.push(places.map((place) => numberOf(cells[place], task.form?.decimal)));
    one.times?.push(cells[timePlace]);
  }
  if (!series.size) throw new Error("the table holds no rows");
  for (const { times } of series.values()) checkOrder(times ?? []);
  const found = lastWindows([...series.values()], table.context, task);
  const leftOut = found.filter(({ refused }) => refused).map(({ name, refused }) => (name ? `${name}: ${refused}` : refused));
  if (leftOut.length === found.length) throw new Error(leftOut[0]);
  return { series: found.filter(({ refused }) => !refused), leftOut };
}

/** Refuse times that go back; local ones do so by an hour, when summer ends. */
function checkOrder(times) {
  const moments = times.map((text) => momentOf(String(text).trim()));
  const back = moments.findIndex(({ at, slack }, i) => i && at < moments[i - 1].at - slack);
  const reversed = moments.length && moments.at(-1).at < moments[0].at;
  if (back < 0 && !reversed) return;
  const [earlier, later] = back < 0 ? [times.at(-1), times[0]] : [times[back], times[back - 1]];
  throw new Error(`the time ${earlier} stands behind ${later}: the oldest table row comes first`);
}

function delimiterOf(text) {
  const first = text.split(/\r?\n/, 1)[0];
  return [",", ";", "\t", "|"].reduce((best, each) => (first.split(each).length > first.split(best).length ? each : best));
}

function cellsOf(text, delimiter) {
  const rows = [[""]];
  let quoted = false;
  for (let i = text.charCodeAt(0) === 0xfeff ? 1 : 0; i < text.length; i++) {
    const letter = text[i];
    const row = rows.at(-1);
    if (quoted && letter === '"' && text[i + 1] === '"') row[row.length - 1] += text[i++];
    else if (letter === '"') quoted = !quoted;
    else if (!quoted && letter === delimiter) row.push("");
    else if (!quoted && letter === "\n") rows.push([""]);
    else if (quoted || letter !== "\r") row[row.length - 1] += letter;
  }
  return rows.filter((row) => row.length > 1 || row[0] !== "");
}

function numberOf(cell, decimal = ".") {
  const text = (cell ?? "").trim().replace(decimal, ".");
  if (text === "" || /^(na|nan|null|none)$/i.test(text)) return null;
  const value = Number(text);
  if (Number.isNaN(value)) throw new Error(`the table holds ${JSON.stringify(cell)} where a number is needed`);
  return value;
}
