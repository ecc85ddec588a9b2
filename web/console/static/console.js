// Optional: refreshes the pages and adds keyboard shortcuts. Every page works without this file.
"use strict";

// Elements with an id and data-live="<seconds>" are replaced with their current version every so many seconds.
async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (answer.redirected) return location.reload(); // the session has ended
  if (!answer.ok) throw new Error(answer.status);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  updateFreshness(page);
  for (const old of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(old.id);
    if (!fresh || old.contains(document.activeElement)) continue;
    keepOpen(old, fresh);
    old.replaceWith(fresh);
  }
}

// Shows the time of the figures, and a warning when the receiver does not answer (page is null), because old figures
// look like current ones.
function updateFreshness(page) {
  const mark = document.getElementById("fresh"), at = page?.querySelector("[data-as-of]")?.dataset.asOf;
  if (!mark) return;
  mark.classList.toggle("stale", !page);
  if (at) mark.textContent = `as of ${at}`;
  if (!page && !mark.textContent.startsWith("no")) mark.textContent = `no connection; ${mark.textContent}`;
}

function keepOpen(old, fresh) {
  const before = old.querySelectorAll("details");
  fresh.querySelectorAll("details").forEach((box, i) => (box.open = before[i]?.open ?? box.open));
}

async function keepFresh() {
  const live = document.querySelector("[data-live]");
  if (!live) return;
  await new Promise((done) => setTimeout(done, 1000 * live.dataset.live));
  try {
    if (!document.hidden) await refresh();
  } catch {
    updateFreshness(null); // try again at the next interval
  }
  keepFresh();
}

// g and a letter: open a page. /: search. j, k: next, previous row; Enter opens it, x selects it. ?: show the shortcuts.
let afterG = false;

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input:not([type=checkbox]), select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const page = afterG && document.querySelector(`nav [data-key="${CSS.escape(event.key)}"]`);
  afterG = event.key === "g";
  if (page) return page.click();
  const actions = { "?": () => document.getElementById("keys")?.showModal(), "/": search, j: () => step(1), k: () => step(-1), x: select };
  if (actions[event.key]) {
    event.preventDefault();
    actions[event.key]();
  }
}

function search() {
  document.querySelector("[data-search]")?.focus();
}

function step(by) {
  const links = [...document.querySelectorAll("tbody a[data-row]")];
  const at = links.indexOf(document.activeElement.closest("tr")?.querySelector("a[data-row]"));
  links[Math.min(Math.max(at + by, 0), links.length - 1)]?.focus();
}

function select() {
  document.activeElement.closest("tr")?.querySelector("input[type=checkbox]")?.click();
}

// A checkbox with data-selects="<name>" selects all checkboxes of that name.
function onChange(event) {
  const name = event.target.dataset.selects;
  if (!name) return;
  for (const box of document.getElementsByName(name)) box.checked = event.target.checked;
}

// "Search older" continues until something is found, the end is reached or Escape is pressed.
let searching = false;

async function searchOlder(event) {
  let link = event.target.closest("[data-older]");
  if (!link || searching) return;
  event.preventDefault();
  searching = true;
  try {
    for (; searching && link; link = document.querySelector("[data-older]")) await showPage(link);
  } catch {
    location.assign(link.href); // let the browser show the error
  } finally {
    searching = false;
  }
}

async function showPage(link) {
  const answer = await fetch(link.href);
  if (answer.redirected || !answer.ok) throw new Error(answer.status);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ["found", "older"]) document.getElementById(id).replaceWith(page.getElementById(id));
}

document.addEventListener("click", searchOlder);
document.addEventListener("keydown", (event) => (searching = searching && event.key !== "Escape"));
document.addEventListener("keydown", onKey);
document.addEventListener("change", onChange);
keepFresh();
