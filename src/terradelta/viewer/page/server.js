// What the page asks of its server. Reviews that cannot be sent wait and are sent again.
//
// The token that a review needs stands in the address that `terradelta view` prints, behind the #.
// It is taken out of the address and its history, and kept for reloads of this tab. A tab that is
// opened with the token of a new server tells it to those that the old one has left behind.

export const READ_ONLY = "Read only: to review, open the address that `terradelta view` has "
  + "printed, with the token in it.";
const KEY = "terradelta-token";
const tabs = new BroadcastChannel(KEY);
const listeners = [];
let token = sessionStorage.getItem(KEY);

takeToken();
addEventListener("hashchange", takeToken);
tabs.addEventListener("message", (event) => keepToken(String(event.data)));

/** A review that the server does not take from this page as it is. */
export class ReadOnlyError extends Error {}

export function mayReview() { return Boolean(token); }

/** Call back when there is a token, or another one. */
export function onToken(listener) { listeners.push(listener); }

function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  // What else stands there is where the map is.
  const rest = location.hash.slice(1).split("&").filter((part) => !part.startsWith("token="));
  history.replaceState(null, "", `${location.pathname}${rest.length ? "#" : ""}${rest.join("&")}`);
  keepToken(given);
  tabs.postMessage(given);
}

function keepToken(given) {
  token = given;
  sessionStorage.setItem(KEY, given);
  for (const listener of listeners) listener();
}

export async function openSession() { return getJson("/api/session"); }

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

/** Save a review and return the patch as it is then; throws TypeError where nobody answers,
 * ReadOnlyError where the server has another token. */
export async function sendReview(fid, review) {
  const response = await put(fid, review);
  // Started again, the server has another token.
  if (response.status === 403) throw new ReadOnlyError(READ_ONLY);
  if (!response.ok) throw new Error(await explain(response));
  return response.json();
}

function put(fid, review) {
  return fetch(`/api/patches/${fid}/review`, {
    method: "PUT",
    headers: { "Content-Type": "application/json", "X-Terradelta-Token": token ?? "" },
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
