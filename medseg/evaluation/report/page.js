"use strict";
(() => {
  const all = [...document.querySelectorAll("article.case")];
  if (!all.length) return;
  const key = "medseg-marks-" + document.body.dataset.report;
  const find = (id) => document.getElementById(id);
  const note = find("marks-text"), tally = find("tally"), shown = find("shown");
  const filters = [...document.querySelectorAll("[data-filter]")];
  const filed = [...document.querySelectorAll("[data-kind]")];
  let marks = load(), here = -1;
  document.documentElement.classList.add("scripted");

  function load() {
    try { return Object.assign(Object.create(null), JSON.parse(localStorage.getItem(key)) || {}); }
    catch { return Object.create(null); }  // private windows and some file:// pages keep nothing
  }
  function store() {
    try { localStorage.setItem(key, JSON.stringify(marks)); } catch { /* the marks stay until the page closes */ }
  }
  function yaml() {
    const lines = ["# Marks made in a medseg report. fail: left out of the next run; fix: waits for a correction.",
      "format: medseg-marks", "version: 1", "report: " + JSON.stringify(document.body.dataset.report)];
    const kept = all.map((a) => a.dataset.case).filter((name) => marks[name]);
    lines.push(kept.length ? "marks:" : "marks: []");
    for (const name of kept) {
      lines.push("  - case: " + JSON.stringify(name), "    mark: " + (marks[name].mark || "none"));
      if (marks[name].note) lines.push("    note: " + JSON.stringify(marks[name].note));
    }
    return lines.join("\n") + "\n";
  }
  function save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([yaml()], { type: "text/yaml" }));
    link.download = "marks.yaml";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  function mark(article, word) {
    const name = article.dataset.case, now = marks[name] || {};
    now.mark = now.mark === word ? "" : word;
    change(name, now);
  }
  function change(name, now) {
    if (now.mark || now.note) marks[name] = now; else delete marks[name];
    store();
    show();
  }
  function show() {
    for (const element of filed) {
      const word = (marks[element.dataset.case] || {}).mark || "";
      element.dataset.mark = word || "unmarked";
      const place = element.querySelector(".given");
      if (place) place.textContent = element.matches("article") ? word : { pass: "✓", fail: "✗", fix: "✎" }[word] || "";
    }
    const count = (word) => all.filter((a) => a.dataset.mark === word).length;
    find("tally-text").textContent = ["pass", "fail", "fix"].map((w) => count(w) + " " + w).join(" · ") + " of " + all.length;
    tally.hidden = count("unmarked") === all.length && !Object.keys(marks).length;
    note.value = yaml();
  }
  function sift() {
    const wanted = filters.filter((f) => f.value);
    const fits = (element) => wanted.every((f) => element.dataset[f.dataset.filter].split("|").includes(f.value));
    for (const element of filed) element.hidden = !fits(element);
    const left = all.filter((a) => !a.hidden).length;
    shown.textContent = left === all.length ? all.length + " cases" : left + " of " + all.length + " cases";
  }
  function go(step) {
    const open = all.filter((a) => !a.hidden);
    if (!open.length) return;
    let at = open.indexOf(all[here]);
    at = at < 0 ? (step > 0 ? 0 : open.length - 1) : Math.min(open.length - 1, Math.max(0, at + step));
    enter(open[at], true);
  }
  function enter(article, move) {
    if (here >= 0) all[here].classList.remove("here");
    here = all.indexOf(article);
    article.classList.add("here");
    if (!move) return;
    article.scrollIntoView({ block: "center", behavior: "instant" });
    article.focus({ preventScroll: true });
  }

  const keys = {
    ArrowRight: () => go(1), ArrowLeft: () => go(-1), s: save,
    p: () => here >= 0 && mark(all[here], "pass"), f: () => here >= 0 && mark(all[here], "fail"),
    x: () => here >= 0 && mark(all[here], "fix"), n: () => here >= 0 && all[here].querySelector(".note").focus(),
    o: () => {
      const boxes = [find("without-reference"), find("without-prediction")], off = !boxes[0].checked;
      for (const box of boxes) box.checked = off;
    },
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input.note")) { if (event.key === "Escape" || event.key === "Enter") event.target.blur(); return; }
    if (event.target.matches("select, textarea")) return;
    const act = keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  for (const article of all) {
    const name = article.dataset.case, words = article.querySelector(".note");
    words.value = (marks[name] || {}).note || "";
    words.addEventListener("input", () => change(name, { ...(marks[name] || {}), note: words.value }));
    article.addEventListener("click", () => enter(article, false));
    for (const button of article.querySelectorAll("[data-mark]")) {
      if (button.matches("button")) button.addEventListener("click", () => { mark(article, button.dataset.mark); });
    }
    const served = document.documentElement.dataset.served, link = article.querySelector(".open3d");
    if (served) { link.href = served + encodeURIComponent(name); link.hidden = false; }
  }
  for (const filter of filters) filter.addEventListener("change", () => { filter.blur(); sift(); });
  for (const chip of document.querySelectorAll("[data-show-tag]")) {
    chip.addEventListener("click", () => {
      const list = document.querySelector("[data-filter=tag]");
      if (list) { list.value = chip.dataset.showTag; sift(); }
    });
  }
  addEventListener("hashchange", () => {
    const article = find(location.hash.slice(1));
    if (article && article.matches("article.case")) enter(article, false);
  });
  find("save").addEventListener("click", save);
  sift();
  show();
})();
