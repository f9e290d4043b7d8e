// Draws a window, the forecast behind it and its intervals as SVG.

const MARGIN = { top: 12, right: 14, bottom: 26, left: 52 };

/**
 * Return a figure of one target.
 *
 * seen: numbers of the window, NaN where one is missing. values: what follows. intervals: [{ level, low, high }] of numbers.
 * seenTimes, times: how the positions are called, of the window perhaps the last alone; null: by numbers.
 */
export function chart({ title, seen, values, intervals, seenTimes, times, width }) {
  const height = Math.round(Math.max(200, Math.min(340, width * 0.42)));
  const ends = intervals.flatMap(({ low, high }) => [...low, ...high]);
  const known = [...seen, ...values, ...ends].filter(Number.isFinite);
  const ticks = niceTicks(Math.min(...known), Math.max(...known), 5);
  const [bottom, top] = [ticks[0], ticks.at(-1)];
  const count = seen.length + values.length;
  const x = (place) => MARGIN.left + (place / Math.max(1, count - 1)) * (width - MARGIN.left - MARGIN.right);
  const y = (value) => height - MARGIN.bottom - ((value - bottom) / (top - bottom)) * (height - MARGIN.top - MARGIN.bottom);
  const now = seen.length - 1;
  const start = Number.isFinite(seen[now]) ? [[x(now), y(seen[now])]] : [];
  const points = values.map((value, step) => [x(now + 1 + step), y(value)]);
  const parts = [
    ...ticks.map((tick) => `<path class="grid" d="M${MARGIN.left} ${y(tick)}H${width - MARGIN.right}"/>` +
      `<text x="${MARGIN.left - 8}" y="${y(tick) + 4}" text-anchor="end">${numberText(tick, ticks)}</text>`),
    ...xLabels(seen.length, values.length, seenTimes, times, width).map(({ place, text, anchor }) =>
      `<text x="${x(place)}" y="${height - 7}" text-anchor="${anchor}">${escaped(text)}</text>`),
    `<path class="now" d="M${x(now)} ${MARGIN.top}V${height - MARGIN.bottom}"/>`,
    ...[...intervals].sort((a, b) => b.level - a.level).map(({ level, low, high }) =>
      `<path class="band${level}" d="${path([...start, ...high.map((v, i) => [points[i][0], y(v)]), ...low.map((v, i) => [points[i][0], y(v)]).reverse()])}Z"/>`),
    ...runsOf(seen).map((run) => `<path class="seen" d="${path(run.map((place) => [x(place), y(seen[place])]))}"/>`),
    `<path class="ahead" d="${path([...start, ...points])}"/>`,
    ...points.map(([px, py], step) => `<circle class="dot" cx="${px}" cy="${py}" r="${x(1) - x(0) < 9 ? 1.8 : 3}">` +
      `<title>${escaped(times?.[step] ?? `step ${step + 1}`)}: ${shortNumber(values[step])}</title></circle>`),
  ];
  const figure = document.createElement("figure");
  figure.innerHTML = `<figcaption>${escaped(title)}</figcaption>` +
    `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(title)}: ${seen.length} values seen, ${values.length} forecast">${parts.join("")}</svg>` +
    `<div class="key"><span><i style="background:var(--seen)"></i>seen</span><span><i style="background:var(--accent)"></i>forecast</span>` +
    [...intervals].map(({ level }) => `<span><i style="background:var(--band${level})"></i>${level} %</span>`).join("") + "</div>";
  return figure;
}

function path(points) {
  return points.map(([px, py], i) => `${i ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
}

/** Return the places of values that stand side by side, without those that are missing. */
function runsOf(values) {
  const runs = [];
  values.forEach((value, place) => {
    if (!Number.isFinite(value)) return;
    if (place && Number.isFinite(values[place - 1])) runs.at(-1).push(place);
    else runs.push([place]);
  });
  return runs;
}

function niceTicks(low, high, most) {
  if (!(high > low)) [low, high] = [low - 1, low + 1];
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const first = Math.floor(low / step);
  return Array.from({ length: Math.ceil(high / step) - first + 1 }, (_, i) => (first + i) * step);
}

function numberText(value, ticks) {
  const step = ticks[1] - ticks[0];
  const digits = Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)));
  const far = Math.max(Math.abs(ticks[0]), Math.abs(ticks.at(-1)));
  if (far >= 1e6 || far < 1e-3) return value === 0 ? "0" : value.toExponential(1);
  return value.toFixed(/\.5/.test(String(step / 10 ** -digits)) ? digits + 1 : digits).replace("-", "\u2212");
}

function xLabels(seen, ahead, seenTimes, times, width) {
  const last = { place: seen + ahead - 1, text: times?.at(-1) ?? `+${ahead}`, anchor: "end" };
  const now = { place: seen - 1, text: seenTimes?.at(-1) ?? "last row", anchor: "middle" };
  const first = { place: 0, text: (seenTimes?.length === seen && seenTimes[0]) || `\u2212${seen - 1}`, anchor: "start" };
  const room = (width - MARGIN.left - MARGIN.right) * (ahead / (seen + ahead));
  const needed = 7 * (String(now.text).length / 2 + String(last.text).length) + 12;
  if (room < needed) now.anchor = "end";
  return room < 7 * String(last.text).length + 12 ? [first, last] : [first, now, last];
}

/** Return a number in five digits. */
export function shortNumber(value) {
  return Number.isFinite(value) ? String(Number(value.toPrecision(5))) : "–";
}

export function escaped(text) {
  return String(text).replace(/[&<>"]/g, (letter) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[letter]);
}
