// What the first output of a model of tables says: values that follow with their intervals, or a label.

import { describedTable } from "./inputs.mjs";
import { stepOf, timesAhead } from "./times.mjs";

/**
 * Return the forecast of each window.
 *
 * arrays: the inputs as they ran, padding included. output: (batch, horizon, targets), or (batch, classes). lastTimes: the time
 * of the last table row of each window, as the table writes it.
 */
export function forecasts(manifest, arrays, output, lastTimes = []) {
  const table = describedTable(manifest);
  const batch = output.dims[0];
  return Array.from({ length: batch }, (_, sample) => {
    if (table.classes.length) return labelOf(table, rows(output, sample));
    const values = asRows(rows(output, sample), table.targets.length);
    return {
      targets: table.targets,
      times: timesAhead(lastTimes[sample], stepOf(manifest.task), values.length),
      values,
      intervals: intervalsOf(manifest, arrays, sample, values),
    };
  });
}

function rows({ data, dims }, sample) {
  const size = data.length / dims[0];
  return data.subarray(sample * size, (sample + 1) * size);
}

function asRows(flat, width) {
  return Array.from({ length: flat.length / width }, (_, i) => Array.from(flat.subarray(i * width, (i + 1) * width), Number));
}

function labelOf(table, logits) {
  const highest = Math.max(...logits);
  const weights = Array.from(logits, (value) => Math.exp(value - highest));
  const total = weights.reduce((sum, value) => sum + value, 0);
  const shares = weights.map((value) => value / total);
  return {
    label: table.classes[shares.indexOf(Math.max(...shares))],
    probabilities: Object.fromEntries(table.classes.map((name, i) => [name, shares[i]])),
  };
}

/** Return the prediction intervals by level: forecast plus offset times the unit of the window. */
function intervalsOf(manifest, arrays, sample, values) {
  const stored = manifest.task.intervals;
  if (!stored) return [];
  const units = stored.unit === "window" ? windowUnits(manifest, arrays, sample, stored.still_unit) : stored.still_unit.map(() => 1);
  const ends = (offsets) => values.map((row, step) => row.map((value, i) => value + offsets[step][i] * units[i]));
  return stored.levels.map(({ level, low, high }) => ({ level, low: ends(low), high: ends(high) }));
}

/** Return the standard deviation of each target over the window; `still` where it never changes. */
function windowUnits(manifest, arrays, sample, still) {
  const main = manifest.inputs.find((port) => port.role === "values");
  const mask = manifest.inputs.find((port) => port.role === "mask");
  const { data, dims } = arrays[main.name];
  const [, length, width] = dims;
  const kept = mask && arrays[mask.name] ? rows(arrays[mask.name], sample) : null;
  return still.map((unit, target) => {
    const seen = [];
    for (let i = 0; i < length; i++) {
      const value = Number(data[(sample * length + i) * width + target]);
      if (!Number.isNaN(value) && (!kept || Number(kept[i]))) seen.push(value);
    }
    if (!seen.length || Math.max(...seen) === Math.min(...seen)) return unit;
    const mean = seen.reduce((sum, value) => sum + value, 0) / seen.length;
    return Math.sqrt(seen.reduce((sum, value) => sum + (value - mean) ** 2, 0) / seen.length);
  });
}
