// The page of a model of tables: the last window, what follows it, and a table of one's own.

import { arraysOf } from "../javascript/vectors.mjs";
import { chart, escaped, shortNumber } from "./chart.mjs";
import { at, showProblem, showRun, state } from "./page.mjs";
import { readTable } from "./table.mjs";

const PERCENT = 100;

/** Prepare the page; return what runs the model and draws. */
export async function showForecast(model) {
  const { table } = model;
  let series = [await firstWindow(model)];
  let chosen = 0;
  let source = null; // name of the file, and the series that were left out
  const run = async () => {
    const { rows, lastTime } = series[chosen];
    if (source) at("source").textContent = sourceText(source, series[chosen]);
    checkLength(model, series[chosen]);
    const started = performance.now();
    const found = await model.forecast(rows, { loops: state.loops, lastTime });
    showRun(performance.now() - started);
    state.forecast = found;
    draw(table, series[chosen], found);
  };
  at("csv").addEventListener("change", async (event) => {
    const file = event.target.files[0];
    if (!file) return;
    try {
      const found = readTable(await file.text(), table, model.manifest.task);
      series = found.series;
      source = { name: file.name, leftOut: found.leftOut };
      chosen = 0;
      fillSeries(series);
      await run();
      showProblem(null);
    } catch (error) {
      showProblem(error);
    }
  });
  at("series").addEventListener("change", (event) => {
    chosen = Number(event.target.value);
    run().then(() => showProblem(null), showProblem);
  });
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (state.forecast && Math.abs(entry.contentRect.width - width) > 1) draw(table, series[chosen], state.forecast);
    width = entry.contentRect.width;
  }).observe(at("charts"));
  at("forecast").hidden = false;
  return run;
}

/** Say which table rows a window holds. */
function sourceText({ name, leftOut }, { rows, gap, inserted, checked }) {
  const words = [`The last ${rows.length - inserted} table rows of ${name}`];
  if (gap) words.push(` behind the gap between ${gap.join(" and ")}`);
  if (inserted) words.push(`, and ${inserted} that are missing between them, without values`);
  words.push(".");
  if (!checked) words.push(" Whether table rows are missing between them was not looked at: their step is not known here.");
  if (leftOut.length) words.push(` Left out: ${leftOut.join("; ")}.`);
  return words.join("");
}

/** Refuse a window that is too short because of a gap: the loader's own words would be of the table. */
function checkLength({ table }, { rows, gap }) {
  if (!gap || rows.length >= table.leastContext) return;
  throw new Error(`${rows.length} table rows behind the gap between ${gap.join(" and ")} are too few, the model was trained on ${table.leastContext} at least`);
}

async function firstWindow(model) {
  const { manifest } = model;
  const vector = manifest.vectors[0];
  const port = manifest.inputs.find((each) => each.role === "values");
  const { data, dims } = (await arraysOf(model.bundle, vector.inputs))[port.name];
  const [, length, width] = dims;
  const rows = Array.from({ length }, (_, i) => Array.from(data.subarray(i * width, (i + 1) * width)));
  const columns = model.table.columns.join(", ");
  at("source").textContent = vector.name === "last window"
    ? `The last ${length} table rows of the data. Or choose a CSV with ${columns}.`
    : `Made-up numbers of a test vector. Choose a CSV with ${columns}.`;
  return { name: "", rows, times: null, lastTime: vector.last_time ?? undefined };
}

function fillSeries(series) {
  at("series").innerHTML = series.map(({ name }, i) => `<option value="${i}">${escaped(name)}</option>`).join("");
  at("series-box").hidden = series.length < 2;
}

function draw(table, { rows, times, lastTime }, found) {
  const width = Math.max(280, at("charts").clientWidth);
  if (found.label !== undefined) {
    at("label").hidden = false;
    at("label").textContent = `${found.label} (${(PERCENT * found.probabilities[found.label]).toFixed(1)} %)`;
    fill("numbers", ["class", "probability"], Object.entries(found.probabilities).map(([name, share]) => [name, share.toFixed(4)]));
    return;
  }
  const figures = found.targets.map((title, target) =>
    chart({
      title,
      width,
      seen: rows.map((row) => row[target] ?? NaN),
      values: found.values.map((row) => row[target]),
      intervals: found.intervals.map(({ level, low, high }) => ({
        level, low: low.map((row) => row[target]), high: high.map((row) => row[target]),
      })),
      seenTimes: times ?? (lastTime === undefined ? null : [lastTime]),
      times: found.times,
    }),
  );
  at("charts").replaceChildren(...figures);
  const levels = found.intervals.map(({ level }) => level);
  const header = ["", ...found.targets.flatMap((name) => [name, ...levels.flatMap((level) => [`${level} % from`, "to"])])];
  const lines = found.values.map((row, step) => [
    found.times?.[step] ?? step + 1,
    ...row.flatMap((value, i) => [value, ...found.intervals.flatMap(({ low, high }) => [low[step][i], high[step][i]])].map(shortNumber)),
  ]);
  fill("numbers", header, lines);
}

/** Fill a table of the page. */
export function fill(id, header, lines) {
  const row = (cells, tag) => `<tr>${cells.map((cell) => `<${tag}>${escaped(cell)}</${tag}>`).join("")}</tr>`;
  at(id).innerHTML = `<thead>${row(header, "th")}</thead><tbody>${lines.map((line) => row(line, "td")).join("")}</tbody>`;
}
