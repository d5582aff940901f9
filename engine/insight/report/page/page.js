// What brings the page to life: charts, theme, copying, and searches that are begun by a click elsewhere.
"use strict";

const root = document.documentElement;
root.classList.add("js");

// Theme: the system's, until somebody chooses.
const dark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
const nameTheme = () => (id("theme").textContent = isDark() ? "Light" : "Dark");
id("theme").hidden = false;
id("theme").onclick = () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
};
dark.onchange = nameTheme;
nameTheme();

// Charts take their colours from the style sheet, so that they need not be drawn anew. Expressions are interpreted
// (`ast`): the page's policy allows no code but its own.
const tip = id("tip");
function showTip(_handler, event, _item, value) {
  tip.hidden = value === null || value === undefined || value === "";
  if (tip.hidden) return;
  tip.textContent = shown(typeof value === "object" ? Object.values(value).join(" · ") : value);
  tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 10)}px`;
}
for (const [name, spec] of Object.entries(JSON.parse(text("charts")))) {
  // Level 1: errors alone.
  const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false, tooltip: showTip };
  vegaEmbed(id(`chart-${name}`), spec, { ...options, logLevel: 1 }).then(
    ({ view }) => view.addEventListener("click", (_event, item) => item?.datum?.find && search(item.datum.find)),
    (error) => console.error(error),
  );
}

const table = new Table(JSON.parse(text("layout")));
table.begin().catch((error) => {
  id("told").textContent = `The table cannot be shown: ${error.message}`;
  throw error;
});

function search(words) {
  id("search").value = words.replaceAll(LINE_END, " "); // it holds one line
  id("rows").scrollIntoView();
  id("scroll").focus({ preventScroll: true });
  table.find();
}

async function copied(words) {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    const area = made("textarea", { cls: "skip" });
    area.value = words;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

document.addEventListener("click", async ({ target }) => {
  const link = target.closest("[data-find]");
  if (link) search(JSON.parse(link.dataset.find));
  const button = target.closest("button.copy");
  if (button) {
    const done = await copied(button.closest("section, li").querySelector("pre").textContent);
    button.textContent = done ? "Copied" : "Cannot copy";
  }
});
id("details").addEventListener("click", (event) => event.target === id("details") && id("details").close());
