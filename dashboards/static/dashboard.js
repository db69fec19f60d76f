// Keys, and filters that apply as they are changed. Without this script every page works by its links and buttons.
"use strict";

document.documentElement.classList.add("script");

// On a phone the bar is one line that is pushed sideways: the page's own place is in sight.
const here = document.querySelector(".bar nav [aria-current]");
if (here) {
  const [place, bar] = [here, here.parentElement].map((box) => box.getBoundingClientRect());
  here.parentElement.scrollLeft += place.left - bar.left - (bar.width - place.width) / 2;
}

for (const form of document.querySelectorAll("form[data-auto]")) {
  let later = 0;
  let typing = false;
  form.addEventListener("keydown", (event) => (typing = event.target.type === "date"));
  form.addEventListener("pointerdown", () => (typing = false));
  form.addEventListener("change", ({ target }) => {
    clearTimeout(later);
    if (!typing || target.type !== "date") form.requestSubmit();
    // A typed date is one from the first digit of its year on: wait until no more is typed.
    else if (!target.value || target.value >= "1970") later = setTimeout(() => form.requestSubmit(), 1000);
  });
  form.addEventListener("submit", () => {
    for (const field of form.elements) field.disabled = Boolean(field.name) && !field.value; // a short address
  });
  window.addEventListener("pageshow", (event) => {
    for (const field of form.elements) field.disabled = false;
    if (event.persisted) form.reset(); // whoever comes back finds the filter of the page that is shown
  });
}

// Nothing is decided or undone twice by pressing twice.
for (const form of document.querySelectorAll("form[method=post]")) {
  form.addEventListener("submit", (event) => {
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
    setTimeout(() => delete form.dataset.sent, 8000); // whoever stops the browser from waiting may try again
  });
  window.addEventListener("pageshow", () => delete form.dataset.sent);
}

// What goes on is looked at again, in place: neither scrolling nor what is open is lost.
async function follow() {
  const part = document.querySelector("[data-follow]");
  if (!part) return;
  try {
    const answer = await fetch(location.href);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = answer.ok && !answer.redirected && page.querySelector("[data-part]");
    if (next) {
      const opened = part.querySelector("details")?.open;
      part.replaceWith(next);
      if (opened !== undefined && next.querySelector("details")) next.querySelector("details").open = opened;
    }
  } catch {
    // the dashboard is away for a moment
  }
  setTimeout(follow, 2000);
}
setTimeout(follow, 1000);

const items = [...document.querySelectorAll("[data-card], .rows tbody tr")];
let chosen = -1;

function mark(index) {
  items[chosen]?.classList.remove("chosen");
  chosen = index;
  items[chosen].classList.add("chosen");
}

items.forEach((item, index) => item.addEventListener("focusin", () => mark(index))); // what somebody works in is what keys are about

function choose(index) {
  if (!items.length) return;
  mark(Math.min(Math.max(index, 0), items.length - 1));
  (items[chosen].querySelector("a.row") || items[chosen]).focus({ preventScroll: true });
  items[chosen].scrollIntoView({ block: items[chosen].matches("tr") ? "nearest" : "start" });
}

function decide(verdict) {
  const item = items[chosen]; // nothing chosen, nothing decided
  if (!item) return;
  const { top, bottom } = item.getBoundingClientRect();
  if (bottom < 0 || top > innerHeight) item.scrollIntoView(); // nor what is out of sight
  else item.querySelector(`form.decide button[value="${verdict}"]`)?.click();
}

function correct() {
  const details = items[chosen]?.querySelector("details.correction");
  if (!details) return;
  details.open = true;
  details.querySelector("textarea").focus();
}

const keys = {
  j: () => choose(chosen + 1),
  k: () => choose(chosen - 1),
  p: () => decide("poison"),
  b: () => decide("benign"),
  u: () => decide("unsure"),
  f: () => decide("flip"),
  e: () => correct(),
  n: () => items[chosen]?.querySelector(".note input")?.focus(),
  z: () => document.querySelector("[data-undo]")?.click(),
  o: () => document.querySelector("[data-open]")?.click(),
  g: () => document.querySelector("[data-next]")?.click(),
};

document.addEventListener("keydown", (event) => {
  const writing = event.target.closest("input, textarea, select");
  if (writing && (event.key === "Escape" || (event.key === "Enter" && writing.closest(".note")))) writing.blur();
  if (writing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (Object.hasOwn(keys, event.key)) {
    event.preventDefault();
    keys[event.key]();
  }
});

const next = items.findIndex((item) => item.id && `#${item.id}` === location.hash); // after the row that was decided on
if (next >= 0) choose(next);
