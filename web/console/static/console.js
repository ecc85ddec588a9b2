// What a page gains by a script: it renews itself, and it can be used by keys. Without this file all works too.
"use strict";

// Elements with data-live="<seconds>" and an id are replaced by what the same page holds then.
async function renew() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (answer.redirected) return location.reload(); // the session is over
  if (!answer.ok) throw new Error(answer.status);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  answered(page);
  for (const old of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(old.id);
    if (!fresh || old.contains(document.activeElement)) continue;
    keepOpen(old, fresh);
    old.replaceWith(fresh);
  }
}

// Old figures look like new ones: the page says of when they are, and when nobody answers.
function answered(page) {
  const mark = document.getElementById("fresh"), at = page?.querySelector("[data-as-of]")?.dataset.asOf;
  if (!mark) return;
  mark.classList.toggle("stale", !page);
  if (at) mark.textContent = `as of ${at}`;
  if (!page && !mark.textContent.startsWith("not")) mark.textContent = `not answering; ${mark.textContent}`;
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
    if (!document.hidden) await renew();
  } catch {
    answered(null); // the receiver is away: the next time, perhaps
  }
  keepFresh();
}

// g and a letter: a page. / search. j, k: rows; Enter opens, x ticks. ? tells all that.
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
  const acts = { "?": () => document.getElementById("keys")?.showModal(), "/": search, j: () => step(1), k: () => step(-1), x: tick };
  if (acts[event.key]) {
    event.preventDefault();
    acts[event.key]();
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

function tick() {
  document.activeElement.closest("tr")?.querySelector("input[type=checkbox]")?.click();
}

// A box with data-ticks="<name>" ticks all boxes of that name.
function onChange(event) {
  const name = event.target.dataset.ticks;
  if (!name) return;
  for (const box of document.getElementsByName(name)) box.checked = event.target.checked;
}

// "Look further" goes on until something is found, the end is reached, or Escape is pressed.
let looking = false;

async function lookFurther(event) {
  let link = event.target.closest("[data-further]");
  if (!link || looking) return;
  event.preventDefault();
  looking = true;
  try {
    for (; looking && link; link = document.querySelector("[data-further]")) await lookBehind(link);
  } catch {
    location.assign(link.href); // what is wrong is for the browser to say
  } finally {
    looking = false;
  }
}

async function lookBehind(link) {
  const answer = await fetch(link.href);
  if (answer.redirected || !answer.ok) throw new Error(answer.status);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ["found", "further"]) document.getElementById(id).replaceWith(page.getElementById(id));
}

document.addEventListener("click", lookFurther);
document.addEventListener("keydown", (event) => (looking = looking && event.key !== "Escape"));
document.addEventListener("keydown", onKey);
document.addEventListener("change", onChange);
keepFresh();
