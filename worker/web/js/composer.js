// The request: words, a picture, and the few choices that matter.
import { api, newKey } from "./api.js";
import { byId, el } from "./dom.js";

const TYPES = ["image/png", "image/jpeg", "image/webp"];
const NUMBERS = ["height_m", "polycount", "texture_size", "seed"];

export function makeComposer(session, opened) {
  const form = byId("composer");
  const prompt = byId("prompt");
  const drop = byId("drop");
  const file = byId("file");
  const error = byId("composer-error");
  const make = byId("make");
  let upload = null; // what the service calls the picture
  let uploading = null;
  let key = newKey();

  // The page shows the splats: they come without being asked for.
  const extra = session.formats.filter((name) => name === "spz");
  const names = session.formats.filter((name) => name !== "glb" && !extra.includes(name));
  byId("formats").append(...names.map((name) =>
    el("label", {}, el("input", { type: "checkbox", name: "format", value: name }), el("span", {}, name))));

  function complain(text) {
    error.textContent = text ?? "";
    error.hidden = !text;
  }

  async function take(picture) {
    complain();
    if (!TYPES.includes(picture.type)) return complain("Give a PNG, JPEG or WebP picture.");
    if (picture.size > session.max_image_bytes) return complain(`The picture is larger than ${session.max_image_bytes / 2 ** 20} MB.`);
    const url = URL.createObjectURL(picture);
    byId("picture-image").src = url;
    byId("picture").hidden = false;
    drop.classList.add("has-picture");
    const mine = (uploading = api.upload(picture));
    try {
      const found = await mine;
      if (uploading === mine) upload = found.id;
    } catch (failure) {
      if (uploading === mine) {
        forget();
        complain(failure.message);
      }
    } finally {
      if (uploading === mine) uploading = null;
    }
  }

  function forget() {
    upload = uploading = null;
    file.value = "";
    byId("picture").hidden = true;
    drop.classList.remove("has-picture");
    URL.revokeObjectURL(byId("picture-image").src);
  }

  byId("browse").addEventListener("click", (event) => { event.preventDefault(); file.click(); });
  byId("picture-remove").addEventListener("click", (event) => { event.preventDefault(); forget(); });
  file.addEventListener("change", () => file.files[0] && take(file.files[0]));
  drop.addEventListener("click", (event) => { if (event.target === drop) prompt.focus(); });
  for (const type of ["dragenter", "dragover"]) {
    addEventListener(type, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  addEventListener("drop", (event) => {
    drop.classList.remove("over");
    const picture = event.dataTransfer?.files[0];
    if (!picture) return;
    event.preventDefault();
    take(picture);
  });
  addEventListener("paste", (event) => {
    const picture = [...(event.clipboardData?.files ?? [])].find((one) => TYPES.includes(one.type));
    if (picture) { event.preventDefault(); take(picture); }
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    complain();
    make.disabled = true;
    try {
      if (uploading) await uploading;
      const values = new FormData(form);
      const body = {
        prompt: prompt.value.trim(),
        preset: values.get("preset"),
        variants: Number(values.get("variants")),
        formats: ["glb", ...extra, ...values.getAll("format").filter((name) => !extra.includes(name))],
      };
      if (values.get("negative")) body.negative = values.get("negative");
      for (const name of NUMBERS) if (values.get(name)) body[name] = Number(values.get(name));
      if (upload) body.image = upload;
      if (!body.prompt && !upload) {
        prompt.focus();
        return complain("Say what to make, or drop a picture.");
      }
      const job = await api.create(body, key);
      key = newKey();
      opened(job);
    } catch (failure) {
      complain(failure.message);
      // A key is good for one request: after a refusal the next press is another one.
      if (failure.status >= 400) key = newKey();
    } finally {
      make.disabled = false;
    }
  });

  return { focus: () => prompt.focus(), say(text) { prompt.value = text; prompt.focus(); } };
}
