// What the page asks of its server. Reviews that cannot be sent wait and are sent again.

let session = null;

export async function openSession() {
  session = await getJson("/api/session");
  return session;
}

export async function getJson(path, parameters = {}, signal = undefined) {
  const response = await fetch(address(path, parameters), { signal });
  if (!response.ok) throw new Error(await explain(response));
  return response.json();
}

export function address(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    for (const part of Array.isArray(value) ? value : [value]) query.append(key, part);
  }
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/** Save a review and return the patch as it is then; throws TypeError where nobody answers. */
export async function sendReview(fid, review) {
  let response = await put(fid, review);
  if (response.status === 403) {
    // The server was started again and gave itself a new token.
    await openSession();
    response = await put(fid, review);
  }
  if (!response.ok) throw new Error(await explain(response));
  return response.json();
}

function put(fid, review) {
  return fetch(`/api/patches/${fid}/review`, {
    method: "PUT",
    headers: { "Content-Type": "application/json", "X-Terradelta-Token": session.token },
    body: JSON.stringify(review),
  });
}

async function explain(response) {
  try {
    const { detail } = await response.json();
    return typeof detail === "string" ? detail : JSON.stringify(detail);
  } catch {
    return `the server answered ${response.status}`;
  }
}
