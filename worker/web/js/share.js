// A shared asset: looking only.
import { api } from "./api.js";
import { byId, el } from "./dom.js";
import { reportList } from "./report.js";
import { showcase } from "./viewer.js";

const stage = byId("stage");
const id = location.pathname.split("/").at(-1);
const token = new URLSearchParams(location.search).get("t") ?? "";

try {
  const asset = await api.shared(id, token);
  const url = (name) => asset.files.find((file) => file.name === name)?.url;
  const asset3d = (suffix) => asset.files.find((file) => file.role === "asset" && file.name.endsWith(suffix))?.url;
  document.title = `${asset.prompt || "Asset"} · Maquette`;
  const shown = await showcase({ glb: asset3d(".glb"), splats: asset3d(".spz"), film: url("turntable.mp4"), poster: url("preview.png"), label: asset.prompt || "The asset" });
  stage.replaceChildren(el("header", { class: "job-head" }, el("h1", {}, asset.prompt || "From a picture")), shown.node,
    asset.report ? el("div", { class: "panels" }, el("section", {}, el("h2", {}, "Report"), reportList(asset.report))) : "");
} catch (error) {
  stage.replaceChildren(el("p", { class: "error big", role: "alert" }, error.status === 404 ? "This link is over, or the asset was deleted." : error.message));
}
