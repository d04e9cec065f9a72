// One job on the stage: how far it is, what it drew on the way, and the asset at the end.
import { api, follow } from "./api.js";
import { bytes, el, toast } from "./dom.js";
import { reportList, screened } from "./report.js";
import { showcase } from "./viewer.js";

const STAGES = {
  picture: "Cutting out the picture",
  views: "Drawing it from all sides",
  field: "Building it in space",
  surface: "Finding the surface",
  mesh: "Making the mesh",
  texture: "Painting the textures",
  export: "Writing the files",
  preview: "Taking pictures",
  finish: "Packing",
  paint: "Painting it from all sides",
  rework: "Working on the mesh",
};
// What is drawn on the way, in its order, and what it is called.
const WAY = [
  ["input.png", "Your picture, cut out"],
  ["views.png", "What the model drew: all channels of all views"],
  ["field.png", "Built of Gaussians"],
  ["surface.png", "The surface"],
  ["mesh.png", "The mesh, within its budget"],
  ["texture.png", "With its textures"],
];
const ENDED = ["succeeded", "failed", "canceled", "expired"];
const SAID = { queued: "Waiting", running: "In the making", succeeded: "Ready", failed: "Failed", canceled: "Cancelled", expired: "Gave up waiting" };

export const fileOf = (job, name) => job.files.find((file) => file.name === name);
export const assetOf = (job, suffix) => job.files.find((file) => file.role === "asset" && file.name.endsWith(suffix));

/** Shows a job in `stage` and follows it; answers a function that stops. `changed` hears every new state. */
export function showJob(stage, first, { changed, connection, open }) {
  let job = first;
  let viewer = null;
  let stop = null;
  let timer = 0;
  let gone = false;

  const title = el("h1", {}, job.prompt || job.name || (job.kind === "generate" ? "From a picture" : "A model"));
  const state = el("p", { class: "state" });
  const heading = el("header", { class: "job-head" }, el("div", {}, state, title), el("div", { class: "actions" }));
  const body = el("div", { class: "job-body" });
  stage.replaceChildren(heading, body);
  const bars = new Map();
  let drawn = "";

  const act = (title, act, options = {}) =>
    el("button", {
      type: "button",
      class: options.class ?? "ghost",
      title: options.title,
      onclick: async (event) => {
        event.target.disabled = true;
        try { await act(); } catch (error) { toast(error.message); } finally { event.target.disabled = false; }
      },
    }, title);

  function actions() {
    const list = [];
    if (!ENDED.includes(job.state)) {
      list.push(act(job.cancel_requested ? "Stopping…" : "Cancel", async () => update(await api.cancel(job.id))));
    } else {
      if (job.state === "succeeded") {
        list.push(act("Share", async () => {
          const { url } = await api.share(job.id);
          await navigator.clipboard?.writeText(url).catch(() => {});
          shareBox(url);
        }, { title: "A link for looking only" }));
        if (job.params.preset === "draft" && job.kind !== "rework") {
          list.push(act("Work it out", async () => open(await api.again(job.id, { preset: "standard" })), { class: "primary", title: "The same asset in standard quality" }));
        }
      } else {
        list.push(act("Try again", async () => update(await api.retry(job.id)), { class: "primary" }));
      }
      list.push(act("Delete", async () => {
        if (!confirm("Delete this asset and its files?")) return;
        await api.remove(job.id);
        gone = true;
        changed(null, job.id);
      }));
    }
    heading.lastChild.replaceChildren(...list);
  }

  function shareBox(url) {
    const box = el("input", { class: "share-url", value: url, readOnly: true, "aria-label": "The link" });
    const dialog = el("dialog", {}, el("h2", {}, "Anyone with this link can look"), box,
      el("button", { class: "primary", type: "button", onclick: () => dialog.close() }, "Done"));
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    box.select();
  }

  function headline() {
    const running = job.stages.find((one) => one.state === "running");
    let text = SAID[job.state];
    if (job.state === "queued" && job.preceding) text += ` behind ${job.preceding}`;
    if (job.state === "running" && running) text = `${STAGES[running.name] ?? running.name}…`;
    if (job.cancel_requested && !ENDED.includes(job.state)) text = "Stopping…";
    state.textContent = text;
    state.dataset.state = job.state;
  }

  function stepper() {
    const list = el("ol", { class: "steps", "aria-label": "Progress" });
    bars.clear();
    for (const one of job.stages) {
      const bar = el("progress", { max: 1, value: one.progress, "aria-label": STAGES[one.name] ?? one.name });
      const note = el("span", { class: "note" });
      bars.set(one.name, { bar, note, item: el("li", {}, el("span", { class: "step-name" }, STAGES[one.name] ?? one.name), bar, note) });
      list.append(bars.get(one.name).item);
    }
    return list;
  }

  function paintSteps() {
    for (const one of job.stages) {
      const shown = bars.get(one.name);
      if (!shown) continue;
      shown.item.dataset.state = one.state;
      shown.item.ariaCurrent = one.state === "running" ? "step" : null;
      shown.bar.value = one.state === "done" ? 1 : one.progress;
      shown.note.textContent = one.state === "delayed" ? "trying again soon" : one.state === "running" ? one.message : "";
    }
  }

  function variants() {
    const found = job.files.filter((file) => /^variant-\d+\.png$/.test(file.name));
    if (!found.length) return null;
    const scores = new Map((job.report?.variants ?? []).map((one) => [one.seed, one.score]));
    return el("section", { class: "variants", "aria-label": "Variants" },
      el("h2", {}, "Variants", el("small", {}, job.report ? `seed ${job.report.seed} was kept` : "the most consistent goes on; pick another if you like it better")),
      el("div", { class: "variant-row" }, found.map((file) => {
        const seed = Number(file.name.slice(8, -4));
        const kept = job.report?.seed === seed;
        return el("button", {
          type: "button", class: "variant", "aria-pressed": String(kept), disabled: kept,
          title: kept ? "This one was kept" : "Go on with this one",
          onclick: async () => { try { open(await api.pick(job.id, seed)); } catch (error) { toast(error.message); } },
        }, el("img", { src: file.url, alt: `Variant with seed ${seed}`, loading: "lazy" }),
          el("span", {}, `seed ${seed}${scores.has(seed) ? ` · ${scores.get(seed).toFixed(2)}` : ""}`));
      })));
  }

  function pictures() {
    const shown = WAY.map(([name, text]) => [fileOf(job, name), text]).filter(([file]) => file);
    if (!shown.length) return null;
    // The newest is what one waits for; afterwards the way is read from its beginning.
    if (!ENDED.includes(job.state)) shown.reverse();
    return el("section", { class: "on-the-way", "aria-label": "On the way" }, el("h2", {}, "On the way"),
      el("div", { class: "way" }, shown.map(([file, text]) =>
        el("figure", { "data-name": file.name },
          el("a", { href: file.url, target: "_blank", rel: "noopener" }, el("img", { src: file.url, alt: text, loading: "lazy" })),
          el("figcaption", {}, text)))));
  }

  function downloads() {
    const files = job.files.filter((file) => file.role === "asset");
    const rest = ["preview.png", "turntable.mp4", "report.json", "receipt.json"].map((name) => fileOf(job, name)).filter(Boolean);
    const link = (file) => el("a", { class: "download", href: `${file.url}${file.url.includes("?") ? "&" : "?"}download=true`, download: file.name },
      el("span", {}, file.name), el("small", {}, bytes(file.bytes)));
    return el("section", { class: "downloads" }, el("h2", {}, "Files"), el("div", { class: "download-list" }, files.map(link), rest.map(link)));
  }

  function newLook() {
    const form = el("form", {
      class: "change look",
      onsubmit: async (event) => {
        event.preventDefault();
        const prompt = form.elements.look.value.trim();
        if (!prompt) return form.elements.look.focus();
        const preset = job.params.preset ?? "standard";
        try { open(await api.retexture(job.id, { prompt, preset })); } catch (error) { toast(error.message); }
      },
    },
    el("label", { class: "grow" }, "The whole object in its new look ", el("input", { name: "look", maxLength: 600, placeholder: job.prompt ? `${job.prompt}, golden` : "a golden barrel" })),
    el("button", { class: "ghost", type: "submit" }, "Paint"));
    return el("section", {}, el("h2", {}, "New look", el("small", {}, "the shape stays")), form);
  }

  function change() {
    if (job.kind !== "generate") return null;
    const form = el("form", {
      class: "change",
      onsubmit: async (event) => {
        event.preventDefault();
        const value = form.elements.polycount.valueAsNumber;
        const height = form.elements.height.valueAsNumber;
        const changes = {};
        if (value) changes.polycount = value;
        if (height) changes.height_m = height;
        if (!Object.keys(changes).length) return;
        try { open(await api.again(job.id, changes)); } catch (error) { toast(error.message); }
      },
    },
    el("label", {}, "Triangles ", el("input", { name: "polycount", type: "number", min: 100, max: 500000, placeholder: String(job.report?.asset?.triangles ?? "") })),
    el("label", {}, "Height, m ", el("input", { name: "height", type: "number", min: 0.001, max: 1000, step: "any", placeholder: String(job.params.height_m ?? 1) })),
    el("button", { class: "ghost", type: "submit" }, "Make again"));
    return el("section", {}, el("h2", {}, "Change"), form);
  }

  async function draw() {
    // What is shown depends on these; progress alone moves bars.
    const key = [job.state, job.files.length, job.cancel_requested].join();
    headline();
    if (key === drawn) { paintSteps(); return; }
    drawn = key;
    actions();
    viewer?.dispose();
    viewer = null;
    if (job.state === "succeeded") {
      const poster = fileOf(job, "preview.png")?.url;
      const shown = await showcase({ glb: assetOf(job, ".glb")?.url, film: fileOf(job, "turntable.mp4")?.url, splats: assetOf(job, ".spz")?.url, poster, label: job.prompt || "The asset" });
      if (gone) return shown.dispose();
      viewer = shown;
      body.replaceChildren(shown.node, el("div", { class: "panels" },
        el("section", {}, el("h2", {}, "Report"), job.report ? reportList(job.report) : null),
        downloads(), el("div", { class: "stack" }, change(), newLook()), variants(), pictures()));
      return;
    }
    const parts = [];
    if (job.error) parts.push(el("p", { class: "error big", role: "alert" }, job.error.message));
    const refused = screened(job.safety.filter((one) => !one.allowed));
    if (refused.length) parts.push(el("ul", { class: "report" }, refused.map(([state, text]) => el("li", { class: state }, text))));
    const shown = [variants(), pictures()].filter(Boolean);
    if (!shown.length && !ENDED.includes(job.state)) shown.push(el("p", { class: "quiet" }, "Pictures come as steps are done."));
    parts.push(el("div", { class: "making" }, stepper(), el("div", { class: "shown" }, shown)));
    body.replaceChildren(...parts);
    paintSteps();
  }

  function update(next) {
    job = next;
    changed(job);
    draw();
    if (ENDED.includes(job.state)) { stop?.(); stop = null; connection("open"); }
    else if (!stop) listen();
  }

  function refresh() {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      if (gone) return;
      try { update(await api.job(job.id)); } catch (error) {
        if (error.status === 404) { gone = true; changed(null, job.id); } else refresh();
      }
    }, 150);
  }

  function listen() {
    stop = follow(job.id, job.events, (type, data) => {
      if (type === "progress") {
        const one = job.stages.find((stage) => stage.name === data.stage);
        if (one) Object.assign(one, { progress: data.progress, message: data.message, state: data.state });
        headline();
        paintSteps();
      } else refresh();
    }, connection);
  }

  draw();
  if (!ENDED.includes(job.state)) listen();
  return () => {
    gone = true;
    clearTimeout(timer);
    stop?.();
    viewer?.dispose();
  };
}
