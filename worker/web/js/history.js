// What was made before: cards with pictures, searched by words of the prompt.
import { api } from "./api.js";
import { ago, byId, el } from "./dom.js";

const PAGE = 24;

export function makeHistory(open) {
  const list = byId("history");
  const more = byId("history-more");
  const search = byId("search");
  const cards = new Map();
  let words = "";
  let current = null;
  let timer = 0;

  function pictureOf(job) {
    const name = ["preview.png", "views.png", "input.png"].find((one) => job.files.some((file) => file.name === one));
    return name && job.files.find((file) => file.name === name);
  }

  function card(job) {
    const picture = pictureOf(job);
    const shown = picture?.name === "preview.png" ? picture.url : null;
    const text = job.prompt || job.name || (job.kind === "generate" ? "From a picture" : "A model");
    const link = el("a", { class: "card", href: `#/job/${job.id}`, title: text, "data-state": job.state, "aria-current": job.id === current ? "page" : null },
      shown ? el("img", { src: shown, alt: "", loading: "lazy" }) : el("span", { class: "card-blank" }, job.state === "running" || job.state === "queued" ? el("progress", { max: 1, value: job.progress, "aria-label": "Progress" }) : job.state === "failed" ? "!" : "–"),
      el("span", { class: "card-text" }, el("b", {}, text), el("small", {}, job.state === "succeeded" ? ago(job.created) : job.state)));
    return el("li", {}, link);
  }

  function put(job) {
    const node = card(job);
    const old = cards.get(job.id);
    if (old) old.replaceWith(node);
    else if (words && !(job.prompt ?? "").toLowerCase().includes(words.toLowerCase())) return;
    else list.prepend(node);
    cards.set(job.id, node);
    byId("history-empty").hidden = cards.size > 0;
  }

  async function load(offset = 0) {
    const asked = words;
    const found = await api.jobs(asked, offset, PAGE);
    if (asked !== words) return;
    if (offset === 0) {
      cards.clear();
      list.replaceChildren();
    }
    for (const job of found.jobs) {
      if (cards.has(job.id)) continue;
      const node = card(job);
      cards.set(job.id, node);
      list.append(node);
    }
    more.hidden = !found.more;
    byId("history-empty").hidden = cards.size > 0;
    byId("history-empty").textContent = words ? "Nothing with these words." : "Nothing here yet.";
  }

  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      words = search.value.trim();
      load().catch(() => {});
    }, 200);
  });
  more.addEventListener("click", () => load(cards.size).catch(() => {}));

  return {
    load,
    put,
    remove(id) {
      cards.get(id)?.remove();
      cards.delete(id);
      byId("history-empty").hidden = cards.size > 0;
    },
    mark(id) {
      current = id;
      for (const [one, node] of cards) {
        if (one === id) node.firstChild.setAttribute("aria-current", "page");
        else node.firstChild.removeAttribute("aria-current");
      }
    },
  };
}
