// Takes marks by keys and clicks, keeps them, and saves them as a file. Nothing that anybody wrote is read as HTML.
"use strict";
(() => {
  const { study, criteria } = JSON.parse(document.getElementById("compare").textContent);
  const prompts = [...document.querySelectorAll("article[data-prompt]")];
  const rater = document.getElementById("rater");
  const done = document.getElementById("done");
  const key = "linc compare " + study;
  let current = 0;

  // Some browsers keep nothing of pages that are files: then nothing is kept.
  const stored = (use) => { try { return use(window.localStorage); } catch { return null; } };
  let kept = {};
  try { kept = JSON.parse(stored((storage) => storage.getItem(key)) ?? "{}") ?? {}; } catch { kept = {}; }
  if (typeof kept !== "object" || Array.isArray(kept)) kept = {};
  rater.value = typeof kept.rater === "string" ? kept.rater : "";

  const fields = (article) => [...article.querySelectorAll("fieldset")];
  const all = prompts.flatMap(fields);
  const given = (field) => field.querySelector("input:checked");
  const count = () => all.filter(given).length;

  function keep() {
    const marks = {};
    document.querySelectorAll("fieldset input:checked").forEach((input) => { marks[input.name] = input.value; });
    stored((storage) => storage.setItem(key, JSON.stringify({ rater: rater.value, marks })));
    all.forEach((field) => field.classList.toggle("given", given(field) !== null));
    tell();
  }

  function tell() {
    document.getElementById("where").textContent = `Prompt ${current + 1} of ${prompts.length}, ${count()} of ${all.length} marks`;
  }

  function show(index, focus) {
    current = Math.max(0, Math.min(prompts.length - 1, index));
    prompts.forEach((article, at) => { article.hidden = at !== current; });
    tell();
    if (!focus) return;
    const open = fields(prompts[current]).find((field) => !given(field));
    if (open) go(open); else prompts[current].querySelector("h3").focus();
    window.scrollTo({ top: document.getElementById("texts").offsetTop });
    (document.activeElement ?? document.body).scrollIntoView({ block: "nearest" });
  }

  // The frame goes to a group of marks: to the one that is given, or the middle.
  const go = (field) => (given(field) ?? field.querySelectorAll("input")[2]).focus();

  function mark(field, value) {
    const input = field.querySelector(`input[value="${value}"]`);
    if (!input) return;
    input.checked = true;
    keep();
    const here = fields(prompts[current]);
    const next = here.slice(here.indexOf(field) + 1).find((other) => !given(other)) ?? here.find((other) => !given(other));
    if (next) go(next);
    else if (current + 1 < prompts.length) show(current + 1, true);
    else document.getElementById("save").focus();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === rater) return;
    const field = document.activeElement?.closest?.("fieldset") ?? fields(prompts[current]).find((other) => !given(other));
    if (/^[1-9]$/.test(event.key) && field) { mark(field, event.key); event.preventDefault(); }
    else if (event.key === "n") { show(current + 1, true); event.preventDefault(); }
    else if (event.key === "p") { show(current - 1, true); event.preventDefault(); }
  });
  document.addEventListener("change", (event) => { if (event.target.matches("fieldset input")) keep(); });
  rater.addEventListener("input", keep);
  document.getElementById("next").addEventListener("click", () => show(current + 1, true));
  document.getElementById("before").addEventListener("click", () => show(current - 1, true));

  document.getElementById("save").addEventListener("click", () => {
    const name = rater.value.trim();
    if (!name) { done.textContent = "Say who you are first."; rater.focus(); return; }
    const ratings = [];
    prompts.forEach((article, prompt) => {
      const texts = new Map();
      fields(article).forEach((field) => {
        const input = given(field);
        if (!input) return;
        const { text, criterion } = field.dataset;
        if (!texts.has(text)) texts.set(text, { prompt: prompt + 1, text });
        if (criteria.includes(criterion)) texts.get(text)[criterion] = Number(input.value);
      });
      ratings.push(...texts.values());
    });
    const file = JSON.stringify({ linc_compare: 1, study, rater: name, ratings }, null, 2) + "\n";
    const link = document.createElement("a");
    link.href = "data:application/json;charset=utf-8," + encodeURIComponent(file);
    link.download = `ratings-${[...name.replace(/[^\p{L}\p{M}\p{N}]+/gu, "_")].slice(0, 40).join("")}.json`;
    link.click();
    done.textContent = `Saved ${count()} of ${all.length} marks.`;
  });

  const marks = kept.marks && typeof kept.marks === "object" ? kept.marks : {};
  document.querySelectorAll("fieldset input").forEach((input) => { input.checked = marks[input.name] === input.value; });
  all.forEach((field) => field.classList.toggle("given", given(field) !== null));
  const open = prompts.findIndex((article) => fields(article).some((field) => !given(field)));
  show(open < 0 ? 0 : open, false);
})();
