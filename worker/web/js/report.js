// report.json in plain words.
import { duration, el } from "./dom.js";

const number = (value) => value.toLocaleString("en");

/** Lines `[state, text]`, state being good, note or bad. */
export function sentences(report) {
  const lines = [];
  const asset = report.asset ?? {};
  if (asset.watertight && asset.manifold) lines.push(["good", "One closed surface without holes: fit for physics and printing."]);
  else if (asset.watertight) lines.push(["note", "Closed, but some edges are shared by more than two faces."]);
  else if (asset.watertight === false) lines.push(["bad", `The surface has holes (${number(asset.border_edges ?? 0)} open edges).`]);
  if (asset.triangles) {
    const parts = asset.components === 1 ? "in one piece" : `in ${number(asset.components ?? 1)} pieces`;
    lines.push(["good", `${number(asset.triangles)} triangles ${parts}.`]);
  }
  if (asset.size) {
    const [x, y, z] = asset.size.map((side) => side.toFixed(2));
    // What was given keeps its place; what was made stands on the floor.
    const place = report.operation ? "" : "; stands on the floor at the origin";
    lines.push(["good", `${x} m wide, ${y} m high, ${z} m deep${place}.`]);
  }
  if (asset.textures?.length) {
    const size = asset.textures[0].split(" ").at(-1).replace("x", " × ");
    const names = asset.textures.map((one) => one.split(" ")[0].replace("_", " ").replace("color", "colour"));
    lines.push(["good", `Textures of ${size} pixels: ${names.join(", ")}.`]);
  }
  if (asset.uv_overlap > 0.01) lines.push(["note", `${(asset.uv_overlap * 100).toFixed(0)} % of the texture is used by more than one place.`]);
  const consistency = report.views?.consistency;
  if (consistency) {
    const worst = Math.min(consistency.shape ?? 1, consistency.color ?? 1);
    if (worst < 0.7) lines.push(["note", "The drawn views contradict each other; another seed may be better."]);
    else lines.push(["good", "The drawn views agree with each other."]);
  }
  const views = report.views;
  if (views && views.in_domain === false) lines.push(["bad", `Far from what the model knows. Nearest: ${views.nearest.join(", ")}.`]);
  else if (views?.nearest?.length) lines.push(["good", `The model knows such things: ${views.nearest.slice(0, 3).join(", ")}.`]);
  for (const warning of report.warnings ?? []) if (views?.in_domain !== false) lines.push(["note", warning]);
  lines.push(...screened(report.safety ?? []));
  const worked = (report.stages ?? []).reduce((sum, stage) => sum + stage.seconds, 0);
  if (worked) lines.push(["good", `Made in ${duration(worked)} of work${report.seed === undefined ? "" : `; seed ${report.seed}`}.`]);
  return lines;
}

const SUBJECTS = { prompt: "the prompt", picture: "your picture", views: "what was drawn", asset: "the asset" };

/** What the safety policies said, as lines: what was judged, and what nobody could judge. */
export function screened(verdicts) {
  const named = (found) => found.map((one) => SUBJECTS[one.subject] ?? one.subject).join(", ");
  const judged = verdicts.filter((one) => one.allowed && one.screened);
  const open = verdicts.filter((one) => one.allowed && !one.screened);
  const lines = verdicts.filter((one) => !one.allowed)
    .map((one) => ["bad", `Refused (${one.category}): ${named([one])}. ${one.reason}.`]);
  if (judged.length) lines.push(["good", `Screened and passed: ${named(judged)}.`]);
  if (open.length) lines.push(["note", `Not judged by the safety policy: ${named(open)}.`]);
  return lines;
}

export function reportList(report) {
  return el("ul", { class: "report" },
    sentences(report).map(([state, text]) => el("li", { class: state }, text)));
}
