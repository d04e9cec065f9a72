// The asset in the round: model-viewer, with what it does not have by itself: base colour, normals,
// roughness and wireframe as modes of display.
import { el, toast } from "./dom.js";
import { makeSplatViewer } from "./splats.js";

export const MODES = [
  ["shaded", "Shaded", "1"],
  ["base", "Base colour", "2"],
  ["normal", "Normals", "3"],
  ["rough", "Roughness", "4"],
  ["wire", "Wireframe", "5"],
];

let loading = null;

/** Loads the viewer once; false when its file is not there (see scripts/web-vendor.sh). */
export function loadViewer() {
  loading ??= import("/web/vendor/model-viewer.js").then(
    () => {
      const Viewer = customElements.get("model-viewer");
      // Their defaults are on another host.
      Viewer.dracoDecoderLocation = "/web/vendor/draco/";
      Viewer.ktx2TranscoderLocation = "/web/vendor/basis/";
      return true;
    },
    () => false,
  );
  return loading;
}

// Values that three's standard material has at the end of its fragment shader, written out as they are.
const OUTPUT = `
#include <dithering_fragment>
if (maquetteMode == 1) gl_FragColor = sRGBTransferOETF(vec4(diffuseColor.rgb, 1.0));
else if (maquetteMode == 2) gl_FragColor = vec4(normalize(normal) * 0.5 + 0.5, 1.0);
else if (maquetteMode == 3) gl_FragColor = vec4(vec3(roughnessFactor), 1.0);
else if (maquetteMode == 4) gl_FragColor = vec4(maquetteLine, 1.0);
`;
const NUMBERS = { shaded: 0, base: 1, normal: 2, rough: 3, wire: 4 };

function sceneOf(viewer) {
  const symbol = Object.getOwnPropertySymbols(viewer).find((one) => one.description === "scene");
  return symbol ? viewer[symbol] : null;
}

function patched(material, uniforms) {
  if (material.userData.maquette) return;
  material.userData.maquette = true;
  const before = material.onBeforeCompile;
  material.onBeforeCompile = (shader, renderer) => {
    before?.call(material, shader, renderer);
    Object.assign(shader.uniforms, uniforms);
    shader.fragmentShader =
      "uniform int maquetteMode;\nuniform vec3 maquetteLine;\n" +
      shader.fragmentShader.replace("#include <dithering_fragment>", OUTPUT);
  };
  material.customProgramCacheKey = () => "maquette";
  material.needsUpdate = true;
}

/**
 * A viewer of a GLB: `{ node, setMode, setTurning, dispose }`. `label` is read out by screen readers.
 */
export function makeViewer(url, label, poster) {
  const viewer = el("model-viewer", {
    class: "viewer",
    src: url,
    alt: label,
    poster: poster ?? null,
    "camera-controls": true,
    "touch-action": "pan-y",
    "shadow-intensity": "1",
    "shadow-softness": "0.9",
    "environment-image": "neutral",
    "tone-mapping": "neutral",
    exposure: "1.05",
    "camera-orbit": "30deg 74deg 118%",
    "min-camera-orbit": "auto auto 20%",
    "interaction-prompt": "none",
    "rotation-per-second": "28deg",
    "auto-rotate-delay": "0",
  });
  const uniforms = { maquetteMode: { value: 0 }, maquetteLine: { value: [0.85, 0.44, 0.25] } };
  let mode = "shaded";

  function show() {
    const scene = sceneOf(viewer);
    if (!scene) return;
    uniforms.maquetteMode.value = NUMBERS[mode];
    scene.traverse((one) => {
      if (!one.isMesh || !one.material?.isMeshStandardMaterial) return;
      patched(one.material, uniforms);
      one.material.wireframe = mode === "wire";
    });
    viewer.shadowIntensity = mode === "shaded" ? 1 : 0;
    // A change that the viewer knows of makes it draw again.
    viewer.exposure = mode === "shaded" ? 1.05 : 1.0501;
    scene.queueRender?.();
  }

  viewer.addEventListener("load", show);
  return {
    node: viewer,
    setMode(name) {
      mode = name;
      viewer.dataset.mode = name;
      show();
    },
    setTurning(turning) {
      viewer.autoRotate = turning;
    },
    reset() {
      viewer.cameraOrbit = "30deg 74deg 118%";
      viewer.fieldOfView = "auto";
      viewer.resetTurntableRotation?.(0);
      viewer.jumpCameraToGoal?.();
    },
    dispose() {
      viewer.remove();
    },
  };
}

/** Viewer, modes and turntable as one block; without the viewer the turntable film takes its place. */
export async function showcase({ glb, film, splats, poster, label }) {
  const stage = el("div", { class: "showcase" });
  if (!(await loadViewer()) || !glb) {
    stage.append(el("div", { class: "showcase-body" }, film
      ? el("video", { class: "viewer", src: film, poster, autoplay: true, loop: true, muted: true, controls: true, playsInline: true })
      : el("img", { class: "viewer", src: poster, alt: label })));
    if (glb) stage.append(el("p", { class: "quiet" }, "The 3D viewer is not installed: run scripts/web-vendor.sh."));
    return { node: stage, dispose() {} };
  }
  const viewer = makeViewer(glb, label, poster);
  const still = el("div", { class: "showcase-body" }, viewer.node);
  const movie = film
    ? el("video", { class: "viewer film", src: film, loop: true, muted: true, playsInline: true, controls: true, preload: "none", hidden: true })
    : null;
  if (movie) still.append(movie);
  const modes = MODES.map(([name, title, key]) =>
    el("button", {
      type: "button",
      class: "tool",
      "aria-pressed": String(name === "shaded"),
      title: `${title} (${key})`,
      "data-mode": name,
      onclick: () => choose(name),
    }, title),
  );
  const turn = el("button", { type: "button", class: "tool", "aria-pressed": "false", title: "Turn (T)", onclick: () => setTurning() }, "Turn");
  const filmButton = movie &&
    el("button", { type: "button", class: "tool", "aria-pressed": "false", title: "Turntable film (V)", onclick: () => setFilm() }, "Film");
  const splatButton = splats &&
    el("button", { type: "button", class: "tool", "aria-pressed": "false", title: "The Gaussians it came from (S)", onclick: () => setSplats() }, "Splats");
  const reset = el("button", { type: "button", class: "tool", title: "First view (R)", onclick: () => { viewer.reset(); cloud?.reset(); } }, "Reset");
  const tools = el("div", { class: "tools", role: "toolbar", "aria-label": "How the asset is shown" },
    el("span", { class: "tool-group" }, modes, splatButton),
    el("span", { class: "tool-group" }, turn, filmButton, reset));
  stage.append(still, tools);
  let cloud = null; // the splats, once they were asked for
  let mode = "shaded";

  function press(name) {
    for (const button of modes) button.setAttribute("aria-pressed", String(button.dataset.mode === name));
    splatButton?.setAttribute("aria-pressed", String(name === "splats"));
  }
  function choose(name) {
    mode = name;
    setFilm(false);
    cloud?.show(false);
    viewer.node.hidden = false;
    viewer.setMode(name);
    press(name);
  }
  async function setSplats(on = splatButton?.getAttribute("aria-pressed") !== "true") {
    if (!splats) return;
    if (!on) return choose(mode);
    setFilm(false);
    press("splats");
    viewer.node.hidden = true;
    if (!cloud) {
      cloud = makeSplatViewer(splats, label);
      still.append(cloud.node);
      cloud.setTurning(turn.getAttribute("aria-pressed") === "true");
      try {
        await cloud.ready;
      } catch (error) {
        toast(error.message);
        cloud.dispose();
        cloud = null;
        return choose(mode);
      }
    }
    // Another view may have been chosen while it loaded.
    cloud?.show(splatButton.getAttribute("aria-pressed") === "true");
  }
  function setTurning(on = turn.getAttribute("aria-pressed") !== "true") {
    turn.setAttribute("aria-pressed", String(on));
    viewer.setTurning(on);
    cloud?.setTurning(on);
  }
  function setFilm(on = filmButton?.getAttribute("aria-pressed") !== "true") {
    if (!movie) return;
    filmButton.setAttribute("aria-pressed", String(on));
    if (on === !movie.hidden) return;
    movie.hidden = !on;
    if (on) cloud?.show(false);
    press(on ? "film" : mode);
    viewer.node.hidden = on;
    if (on) movie.play().catch(() => {});
    else movie.pause();
  }
  function keys(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|TEXTAREA|SELECT/.test(event.target.tagName)) return;
    const mode = MODES.find(([, , key]) => key === event.key);
    if (mode) choose(mode[0]);
    else if (event.key === "t") setTurning();
    else if (event.key === "v") setFilm();
    else if (event.key === "s") setSplats();
    else if (event.key === "r") reset.click();
  }
  addEventListener("keydown", keys);
  return {
    node: stage,
    dispose() {
      removeEventListener("keydown", keys);
      cloud?.dispose();
      viewer.dispose();
    },
  };
}
