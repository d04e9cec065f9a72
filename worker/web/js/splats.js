// The Gaussians that an asset came from, drawn as such: an SPZ file in a WebGL2 canvas that can be orbited.
//
// Each Gaussian is a quad that covers it up to `REACH` standard deviations, projected by EWA splatting (Zwicker et
// al. 2001): the 3D covariance goes through the local affine of the perspective projection, widened by a third of
// a pixel. Quads are blended back to front; sorting by depth is a counting sort on the processor, a millisecond
// for the tens of thousands that our assets have.
import { el } from "./dom.js";

const MAGIC = 0x5053474e; // "NGSP"
const SH_C0 = 0.28209479177387814;
const TEXELS = 4; // of the data texture, per Gaussian
const WIDTH = 1024; // of the data texture, a multiple of TEXELS
const REACH = 3.0;
const MAX_COUNT = 2_000_000;
const FIELD_OF_VIEW = (30 * Math.PI) / 180;
const FIRST = { azimuth: (30 * Math.PI) / 180, polar: (74 * Math.PI) / 180 };

const VERTEX = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D data;
uniform mat4 view;
uniform vec2 focal;
uniform vec2 size;
in vec2 corner;
in uint which;
out vec2 place;
flat out vec4 tint;
vec4 texel(int number) {
  int at = int(which) * ${TEXELS} + number;
  return texelFetch(data, ivec2(at % ${WIDTH}, at / ${WIDTH}), 0);
}
void main() {
  vec4 head = texel(0), first = texel(1), rest = texel(2), color = texel(3);
  vec4 mean = view * vec4(head.xyz, 1.0);
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);
  if (mean.z > -0.01) return;
  mat3 spread = mat3(first.x, first.y, first.z, first.y, first.w, rest.x, first.z, rest.x, rest.y);
  mat3 turn = mat3(view);
  float depth = -mean.z;
  vec2 slope = clamp(mean.xy / depth, -1.3 * size / (2.0 * focal), 1.3 * size / (2.0 * focal)) * depth;
  mat3 bend = mat3(focal.x / depth, 0.0, 0.0, 0.0, focal.y / depth, 0.0,
                   focal.x * slope.x / (depth * depth), focal.y * slope.y / (depth * depth), 0.0);
  mat3 flat2 = bend * turn;
  mat3 seen = flat2 * spread * transpose(flat2);
  float a = seen[0][0] + 0.3, b = seen[0][1], c = seen[1][1] + 0.3;
  float middle = 0.5 * (a + c), apart = length(vec2(0.5 * (a - c), b));
  float large = middle + apart, small = max(middle - apart, 0.05);
  vec2 axis = abs(b) > 1e-6 ? normalize(vec2(b, large - a)) : (a >= c ? vec2(1.0, 0.0) : vec2(0.0, 1.0));
  vec2 offset = corner.x * sqrt(large) * axis + corner.y * sqrt(small) * vec2(-axis.y, axis.x);
  vec2 pixel = focal * mean.xy / depth + offset * ${REACH.toFixed(1)};
  gl_Position = vec4(2.0 * pixel / size, 0.0, 1.0);
  place = corner * ${REACH.toFixed(1)};
  tint = vec4(color.rgb, head.w);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 place;
flat in vec4 tint;
out vec4 shown;
void main() {
  float alpha = min(0.999, tint.a * exp(-0.5 * dot(place, place)));
  if (alpha < 0.004) discard;
  shown = vec4(tint.rgb * alpha, alpha);
}`;

/** Gaussians of an SPZ file, version 2: what the shader reads of each, and the means. Harmonics beyond the constant
 * one are left out. */
export function readSpz(buffer) {
  const view = new DataView(buffer);
  if (buffer.byteLength < 16 || view.getUint32(0, true) !== MAGIC) throw new Error("This is no SPZ file.");
  const version = view.getUint32(4, true);
  const count = view.getUint32(8, true);
  const fraction = 1 / (1 << view.getUint8(13));
  if (version !== 2 || count < 1 || count > MAX_COUNT || buffer.byteLength < 16 + 19 * count) {
    throw new Error("This SPZ file is of another kind, or cut off.");
  }
  const bytes = new Uint8Array(buffer, 16);
  const alphas = bytes.subarray(9 * count);
  const colors = bytes.subarray(10 * count);
  const scales = bytes.subarray(13 * count);
  const turns = bytes.subarray(16 * count);
  const rows = Math.ceil((count * TEXELS) / WIDTH);
  const data = new Float32Array(WIDTH * rows * 4);
  const means = new Float32Array(3 * count);
  for (let i = 0; i < count; i++) {
    const to = i * TEXELS * 4;
    for (let k = 0; k < 3; k++) {
      const at = 9 * i + 3 * k;
      const value = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16);
      means[3 * i + k] = data[to + k] = ((value << 8) >> 8) * fraction;
      data[to + 12 + k] = Math.min(1, Math.max(0, ((colors[3 * i + k] / 255 - 0.5) / 0.15) * SH_C0 + 0.5));
    }
    data[to + 3] = alphas[i] / 255;
    const [x, y, z] = [0, 1, 2].map((k) => turns[3 * i + k] / 127.5 - 1);
    const w = Math.sqrt(Math.max(0, 1 - x * x - y * y - z * z));
    const turn = [
      1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
      2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
      2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ];
    const squares = [0, 1, 2].map((k) => Math.exp(2 * (scales[3 * i + k] / 16 - 10)));
    const spread = (r, c) => [0, 1, 2].reduce((sum, k) => sum + turn[3 * r + k] * squares[k] * turn[3 * c + k], 0);
    data.set([spread(0, 0), spread(0, 1), spread(0, 2), spread(1, 1), spread(1, 2), spread(2, 2)], to + 4);
  }
  return { count, rows, data, means };
}

async function load(url) {
  const answer = await fetch(url, { credentials: "same-origin" });
  if (!answer.ok) throw new Error(`The file of the splats answers ${answer.status}.`);
  const plain = answer.body.pipeThrough(new DecompressionStream("gzip"));
  return readSpz(await new Response(plain).arrayBuffer());
}

/** Middle and radius of the means, without the farthest per cent. */
function frame({ means, count }) {
  const low = [0, 1, 2].map((k) => Math.min(...sample(means, count, k)));
  const high = [0, 1, 2].map((k) => Math.max(...sample(means, count, k)));
  const center = low.map((value, k) => (value + high[k]) / 2);
  return { center, radius: Math.hypot(...high.map((value, k) => value - low[k])) / 2 || 1 };
}

function sample(means, count, k) {
  const step = Math.max(1, Math.floor(count / 20_000));
  const values = [];
  for (let i = 0; i < count; i += step) values.push(means[3 * i + k]);
  values.sort((a, b) => a - b);
  const cut = Math.floor(values.length / 200);
  return [values[cut], values[values.length - 1 - cut]];
}

function program(gl) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(gl.getProgramInfoLog(made));
  return made;
}

/**
 * A viewer of an SPZ file: `{ node, ready, setTurning, reset, show, dispose }`. `label` is read out by screen readers.
 */
export function makeSplatViewer(url, label) {
  const canvas = el("canvas", { class: "viewer splats", tabIndex: 0, role: "img", "aria-label": `${label}, as splats` });
  const orbit = { ...FIRST, away: 1 };
  let scene = null;
  let turning = false;
  let visible = true;
  let asked = 0;
  let last = 0;
  let gl = null;
  let parts = null;

  function build() {
    gl = canvas.getContext("webgl2", { alpha: true, premultipliedAlpha: true, antialias: false });
    if (!gl) throw new Error("This browser has no WebGL2.");
    const made = program(gl);
    const place = (name) => gl.getUniformLocation(made, name);
    gl.useProgram(made);
    const texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, WIDTH, scene.rows, 0, gl.RGBA, gl.FLOAT, scene.data);
    const corners = gl.getAttribLocation(made, "corner");
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(corners);
    gl.vertexAttribPointer(corners, 2, gl.FLOAT, false, 0, 0);
    const which = gl.getAttribLocation(made, "which");
    const order = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, order);
    gl.enableVertexAttribArray(which);
    gl.vertexAttribIPointer(which, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(which, 1);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    parts = { order, view: place("view"), focal: place("focal"), size: place("size"), sorted: "" };
  }

  function camera() {
    const away = (orbit.away * 0.92 * scene.radius) / Math.sin(FIELD_OF_VIEW / 2);
    const back = [
      Math.sin(orbit.polar) * Math.sin(orbit.azimuth),
      Math.cos(orbit.polar),
      Math.sin(orbit.polar) * Math.cos(orbit.azimuth),
    ];
    const right = [Math.cos(orbit.azimuth), 0, -Math.sin(orbit.azimuth)];
    const up = [
      back[1] * right[2] - back[2] * right[1],
      back[2] * right[0] - back[0] * right[2],
      back[0] * right[1] - back[1] * right[0],
    ];
    const dot = (a) => -(a[0] * scene.center[0] + a[1] * scene.center[1] + a[2] * scene.center[2]);
    return {
      back,
      matrix: new Float32Array([
        right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0,
        dot(right), dot(up), dot(back) - away, 1,
      ]),
    };
  }

  /** Farthest first, along `back`. */
  function sort(back) {
    const { count, means } = scene;
    const key = back.map((value) => value.toFixed(2)).join();
    if (key === parts.sorted) return;
    parts.sorted = key;
    const depth = new Float32Array(count);
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < count; i++) {
      const value = means[3 * i] * back[0] + means[3 * i + 1] * back[1] + means[3 * i + 2] * back[2];
      depth[i] = value;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    const bins = 65_536;
    const scale = (bins - 1) / (high - low || 1);
    const starts = new Uint32Array(bins + 1);
    const bin = new Uint16Array(count);
    for (let i = 0; i < count; i++) {
      bin[i] = (depth[i] - low) * scale;
      starts[bin[i] + 1]++;
    }
    for (let i = 0; i < bins; i++) starts[i + 1] += starts[i];
    const order = new Uint32Array(count);
    for (let i = 0; i < count; i++) order[starts[bin[i]]++] = i;
    gl.bindBuffer(gl.ARRAY_BUFFER, parts.order);
    gl.bufferData(gl.ARRAY_BUFFER, order, gl.DYNAMIC_DRAW);
  }

  function draw(now) {
    asked = 0;
    if (!parts || !visible || gl.isContextLost()) return;
    if (turning) {
      orbit.azimuth -= Math.min(100, now - (last || now)) * 0.00049; // 28 degrees a second, as model-viewer turns
      plan();
    }
    last = now;
    const ratio = Math.min(2, devicePixelRatio || 1);
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const { back, matrix } = camera();
    sort(back);
    const focal = Math.min(width, height) / 2 / Math.tan(FIELD_OF_VIEW / 2);
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniformMatrix4fv(parts.view, false, matrix);
    gl.uniform2f(parts.focal, focal, focal);
    gl.uniform2f(parts.size, width, height);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, scene.count);
    canvas.dataset.drawn = "true";
  }

  function plan() {
    asked ||= requestAnimationFrame(draw);
  }

  function move(azimuth, polar) {
    orbit.azimuth += azimuth;
    orbit.polar = Math.min(Math.PI - 0.05, Math.max(0.05, orbit.polar + polar));
    plan();
  }
  function zoom(factor) {
    orbit.away = Math.min(4, Math.max(0.15, orbit.away * factor));
    plan();
  }

  const fingers = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const others = [...fingers.values()].filter((one) => one.pointerId !== event.pointerId);
    fingers.set(event.pointerId, event);
    if (others.length === 1) {
      const reach = (one) => Math.hypot(one.clientX - others[0].clientX, one.clientY - others[0].clientY) || 1;
      zoom(reach(before) / reach(event));
    } else if (!others.length) {
      const full = (2 * Math.PI) / canvas.clientHeight;
      // A finger that goes up and down scrolls the page, as over model-viewer.
      move(-(event.clientX - before.clientX) * full, event.pointerType === "touch" ? 0 : -(event.clientY - before.clientY) * full);
    }
  });
  for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(event.deltaY * 0.001));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [0.12, 0], ArrowRight: [-0.12, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] };
    if (steps[event.key]) move(...steps[event.key]);
    else if (event.key === "PageUp") zoom(0.9);
    else if (event.key === "PageDown") zoom(1 / 0.9);
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
  canvas.addEventListener("webglcontextrestored", () => { build(); plan(); });
  const resized = new ResizeObserver(plan);
  resized.observe(canvas);

  const ready = load(url).then((found) => {
    scene = { ...found, ...frame(found) };
    build();
    canvas.dataset.count = String(found.count);
    plan();
  });
  return {
    node: canvas,
    ready,
    setTurning(on) {
      turning = on;
      last = 0;
      plan();
    },
    reset() {
      Object.assign(orbit, FIRST, { away: 1 });
      plan();
    },
    show(on) {
      visible = on;
      canvas.hidden = !on;
      last = 0;
      plan();
    },
    dispose() {
      visible = false;
      resized.disconnect();
      cancelAnimationFrame(asked);
      gl?.getExtension("WEBGL_lose_context")?.loseContext();
      canvas.remove();
    },
  };
}
