// Keeps the page at what the server says, without reloading: what did not change is not touched,
// so focus, selection, scrolling and opened details stay as they are.
"use strict";

const PERIOD_MS = 2000;
const SLOWEST_MS = 30000;
const PATIENCE_MS = 8000;
const QUIET_MS = 15000;

const live = document.getElementById("live");
const announcer = document.getElementById("announcer");
const connection = document.getElementById("connection");
let tag = "";
let failures = 0;
let lastSeen = new Date();
let lastSaid = 0;
let lastUrgent = null;
let lastTold = null;
let timer = 0;

function becomeLike(node, wanted) {
  if (node.nodeType !== wanted.nodeType || node.nodeName !== wanted.nodeName) {
    node.replaceWith(wanted.cloneNode(true));
    return;
  }
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.nodeValue !== wanted.nodeValue) node.nodeValue = wanted.nodeValue;
    return;
  }
  takeAttributes(node, wanted);
  takeChildren(node, wanted);
}

function takeAttributes(node, wanted) {
  const own = node.nodeName === "DETAILS" ? ["open"] : [];
  for (const { name } of [...node.attributes]) {
    if (!wanted.hasAttribute(name) && !own.includes(name)) node.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (node.getAttribute(name) !== value && !own.includes(name)) node.setAttribute(name, value);
  }
}

function takeChildren(node, wanted) {
  const present = [...node.childNodes];
  const coming = [...wanted.childNodes];
  coming.forEach((child, i) => {
    if (i < present.length) becomeLike(present[i], child);
    else node.append(child.cloneNode(true));
  });
  for (const extra of present.slice(coming.length)) extra.remove();
}

function announce(force) {
  const told = live.querySelector("[data-announcement]");
  if (!told) return;
  const { announcement, urgent } = told.dataset;
  const now = Date.now();
  if (lastTold === null) [lastTold, lastUrgent] = [announcement, urgent];
  if (announcement === lastTold) return;
  if (!force && urgent === lastUrgent && now - lastSaid < QUIET_MS) return;
  [lastTold, lastUrgent, lastSaid] = [announcement, urgent, now];
  announcer.textContent = announcement;
}

async function update() {
  window.clearTimeout(timer);
  try {
    const answer = await fetch("/live", {
      headers: tag ? { "If-None-Match": tag } : {},
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (answer.status !== 304) {
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      takeChildren(live, page.body);
      document.title = live.querySelector("[data-title]")?.dataset.title ?? document.title;
      tag = answer.headers.get("ETag") ?? "";
    }
    reached();
  } catch {
    lost();
  }
  if (!document.hidden) {
    const wait = Math.min(PERIOD_MS * 2 ** Math.min(failures, 4), SLOWEST_MS);
    timer = window.setTimeout(update, wait);
  }
}

function reached() {
  const was = failures;
  failures = 0;
  lastSeen = new Date();
  connection.hidden = true;
  announce(was > 1);
}

function lost() {
  failures += 1;
  if (failures !== 2) return;
  const when = lastSeen.toISOString().slice(11, 19);
  connection.textContent =
    `The page does not answer since ${when} UTC. What you see is as it was then; ` +
    "it goes on by itself once the page is served again.";
  connection.hidden = false;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) update();
});
announce(false);
timer = window.setTimeout(update, PERIOD_MS);
