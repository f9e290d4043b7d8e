// The page of a model of text: a prompt, and what the model writes behind it.

import { at, showProblem, showRun, state } from "./page.mjs";

/** Prepare the page; return what writes. */
export async function showText(model) {
  const { manifest } = model;
  const prompt = manifest.vectors.find((vector) => vector.text)?.text.prompt ?? "The ";
  at("prompt").value = prompt;
  Object.assign(at("tokens"), { value: manifest.decoding.new_tokens, max: manifest.decoding.context });
  at("ms-name").textContent = "a token";
  at("text").hidden = false;
  let stop = null;
  const write = async () => {
    if (stop) return void stop.abort();
    stop = new AbortController();
    at("write").textContent = "Stop";
    const asked = at("prompt").value;
    try {
      showProblem(null);
      state.generated = await written(model, asked, stop.signal);
    } catch (error) {
      showProblem(error);
    }
    at("write").textContent = "Write";
    stop = null;
  };
  at("write").addEventListener("click", write);
  return async () => {}; // another loop count counts from the next text on
}

const ENDS = { end: "the text has ended", new_tokens: "", context: "the context is full", stopped: "stopped" };

async function written(model, prompt, signal) {
  const begun = performance.now();
  let first = null;
  let count = 0;
  const shown = document.createElement("span");
  const asked = Object.assign(document.createElement("span"), { className: "asked", textContent: prompt });
  at("written").replaceChildren(asked, shown);
  const found = await model.generate(prompt, {
    newTokens: Number(at("tokens").value),
    loops: state.loops,
    signal,
    onText: (text) => {
      first ??= performance.now();
      count += 1;
      shown.textContent = text;
      const each = (performance.now() - first) / Math.max(1, count - 1);
      if (count > 1) showRun(each);
      at("pace").textContent = count > 1 ? `${(1000 / each).toFixed(0)} tokens/s` : "";
    },
  });
  shown.textContent = found.text;
  const why = ENDS[found.ended];
  at("pace").textContent += `${why ? `${at("pace").textContent ? ", " : ""}${why}` : ""}`;
  return { ...found, prompt, milliseconds: performance.now() - begun };
}
