// Keys, and filters that apply as they are changed. Without this script every page works by its links and buttons.
"use strict";

document.documentElement.classList.add("script");

for (const form of document.querySelectorAll("form[data-auto]")) {
  form.addEventListener("change", () => form.requestSubmit());
  form.addEventListener("submit", () => {
    for (const field of form.elements) field.disabled = Boolean(field.name) && !field.value; // a short address
  });
  window.addEventListener("pageshow", () => {
    for (const field of form.elements) field.disabled = false; // whoever comes back finds the form as it was
  });
}

const items = [...document.querySelectorAll("[data-card], .rows tbody tr")];
let chosen = -1;

function choose(index) {
  if (!items.length) return;
  items[chosen]?.classList.remove("chosen");
  chosen = Math.min(Math.max(index, 0), items.length - 1);
  items[chosen].classList.add("chosen");
  (items[chosen].querySelector("a.row") || items[chosen]).focus({ preventScroll: true });
  items[chosen].scrollIntoView({ block: "nearest" });
}

function decide(verdict) {
  const form = items[Math.max(chosen, 0)]?.querySelector("form.decide") || items[1]?.querySelector("form.decide");
  form?.querySelector(`button[value="${verdict}"]`)?.click();
}

const keys = {
  j: () => choose(chosen + 1),
  k: () => choose(chosen - 1),
  p: () => decide("poison"),
  b: () => decide("benign"),
  u: () => decide("unsure"),
  n: () => items[Math.max(chosen, 0)]?.querySelector(".note input")?.focus(),
  z: () => document.querySelector("[data-undo]")?.click(),
  g: () => document.querySelector("[data-next]")?.click(),
};

document.addEventListener("keydown", (event) => {
  const writing = event.target.closest("input, textarea, select");
  if (writing && event.key === "Escape") writing.blur();
  if (writing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (Object.hasOwn(keys, event.key)) {
    event.preventDefault();
    keys[event.key]();
  }
});
