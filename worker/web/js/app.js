// The page: a composer and a history beside a stage, and which job is on it.
import { api } from "./api.js";
import { makeComposer } from "./composer.js";
import { byId, el, toast } from "./dom.js";
import { makeHistory } from "./history.js";
import { showJob } from "./job.js";

const EXAMPLES = ["a red mushroom", "an old oak tree", "a mossy rock", "a green glass bottle", "an iron sword", "a carved pumpkin"];
const stage = byId("stage");
let history = null;
let composer = null;
let stop = null;
let shown = null;

function connection(state) {
  const line = byId("link-state");
  line.hidden = state === "open";
  line.textContent = state === "open" ? "" : "Connection lost, trying again…";
}

function welcome() {
  stop?.();
  stop = shown = null;
  history.mark(null);
  connection("open");
  stage.replaceChildren(el("div", { class: "welcome" },
    el("h1", {}, "What shall it be?"),
    el("p", {}, "Describe one object, or drop a picture of it. You get a textured, closed mesh in metres, ready for an engine."),
    el("div", { class: "examples" }, EXAMPLES.map((text) =>
      el("button", { type: "button", class: "ghost", onclick: () => composer.say(text) }, text)))));
}

function changed(job, gone) {
  if (job) history.put(job);
  else {
    history.remove(gone);
    location.hash = "";
  }
}

function open(job) {
  history.put(job);
  present(job);
  location.hash = `#/job/${job.id}`;
}

function present(job) {
  stop?.();
  shown = job.id;
  history.mark(job.id);
  stop = showJob(stage, job, { changed, connection, open });
  document.title = `${job.prompt || "Asset"} · Maquette`;
  if (matchMedia("(max-width: 899px)").matches) stage.scrollIntoView({ behavior: "instant" });
}

async function route() {
  const id = location.hash.match(/^#\/job\/([\w-]+)$/)?.[1];
  if (!id) {
    document.title = "Maquette";
    welcome();
    return;
  }
  if (id === shown) return;
  try {
    present(await api.job(id));
  } catch (error) {
    toast(error.message);
    if (error.status === 404) location.hash = "";
  }
}

function askKey() {
  const dialog = byId("sign-in");
  if (dialog.open) return;
  dialog.showModal();
  dialog.oncancel = (event) => event.preventDefault();
  dialog.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    try {
      await api.signIn(byId("key").value.trim());
      location.reload();
    } catch (error) {
      byId("sign-in-error").textContent = error.message;
      byId("sign-in-error").hidden = false;
    }
  };
}

async function start() {
  addEventListener("maquette-sign-in", () => askKey());
  let session;
  try {
    session = await api.session();
  } catch (error) {
    stage.replaceChildren(el("p", { class: "error big", role: "alert" }, error.message));
    return;
  }
  if (!session.signed_in) return askKey();
  byId("sign-out").hidden = !session.keys;
  byId("sign-out").onclick = async () => { await api.signOut(); location.reload(); };
  history = makeHistory(open);
  composer = makeComposer(session, open);
  addEventListener("hashchange", route);
  route();
  history.load().then(() => history.mark(shown)).catch((error) => toast(error.message));
}

start();
