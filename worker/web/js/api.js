// The service's native API.

export class ApiError extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function ask(method, path, body, headers = {}) {
  const options = { method, headers: { ...headers }, credentials: "same-origin" };
  if (body instanceof Blob) {
    options.body = body;
    options.headers["Content-Type"] = body.type;
  } else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new ApiError(0, "The service does not answer. Is it running?", "Offline");
  }
  if (answer.status === 204) return null;
  const data = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    if (answer.status === 401) dispatchEvent(new Event("maquette-sign-in"));
    throw new ApiError(answer.status, data.message ?? `The service answered ${answer.status}.`, data.code);
  }
  return data;
}

export const api = {
  session: () => ask("GET", "/v1/session"),
  signIn: (key) => ask("POST", "/v1/session", { key }),
  signOut: () => ask("DELETE", "/v1/session"),
  jobs: (q, offset, limit = 24) =>
    ask("GET", `/v1/jobs?${new URLSearchParams({ ...(q ? { q } : {}), offset, limit })}`),
  job: (id) => ask("GET", `/v1/jobs/${id}`),
  // A key of its own per press of the button: a request that is sent twice makes one job.
  create: (body, key) => ask("POST", "/v1/jobs", body, { "Idempotency-Key": key }),
  again: (id, changes) => ask("POST", `/v1/jobs/${id}/again`, changes),
  retexture: (id, look) => ask("POST", `/v1/jobs/${id}/retexture`, look),
  pick: (id, seed) => ask("POST", `/v1/jobs/${id}/pick`, { seed }),
  cancel: (id) => ask("POST", `/v1/jobs/${id}/cancel`),
  retry: (id) => ask("POST", `/v1/jobs/${id}/retry`),
  remove: (id) => ask("DELETE", `/v1/jobs/${id}`),
  share: (id) => ask("POST", `/v1/jobs/${id}/share`),
  shared: (id, token) => ask("GET", `/v1/shared/${id}?${new URLSearchParams({ t: token })}`),
  upload: (file) => ask("POST", "/v1/uploads", file),
};

export const newKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/**
 * Follows a job from event `after` on. The browser comes back by itself, with the number of the last event;
 * `state` hears "open" and "lost". Answers a function that stops it.
 */
export function follow(id, after, heard, state) {
  const source = new EventSource(`/v1/jobs/${id}/events?after=${after}`);
  for (const type of ["job", "stage", "progress"]) {
    source.addEventListener(type, (event) => {
      const data = JSON.parse(event.data);
      heard(type, data);
      if (type === "job" && !["queued", "running"].includes(data.state)) source.close();
    });
  }
  source.onopen = () => state("open");
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) heard("job", { state: "closed" });
    else state("lost");
  };
  return () => source.close();
}
