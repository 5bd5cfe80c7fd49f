// Asks the page's process. A missing token shows the login.
import { byId } from "./dom.js";

const listeners = new Set();
export const onLogin = (listener) => listeners.add(listener);

export class Refusal extends Error {
  constructor(status, text) { super(text || `status ${status}`); this.status = status; }
}

export async function get(path, query = {}) {
  const parameters = new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)]));
  return checked(await fetch(`${path}?${parameters}`, { cache: "no-store", credentials: "same-origin" }));
}

export async function post(path, query, body) {
  const parameters = new URLSearchParams(query);
  const headers = { "Content-Type": "application/json" };
  return checked(await fetch(`${path}?${parameters}`, { method: "POST", headers, body: JSON.stringify(body) }));
}

async function checked(response) {
  if (response.ok) return response;
  const text = (await response.text()).trim();
  if (response.status === 401) showLogin(true);
  throw new Refusal(response.status, text);
}

export function showLogin(isNeeded) {
  byId("login").hidden = !isNeeded;
  byId("views").hidden = isNeeded;
  if (isNeeded) byId("token").focus();
}

async function login(token) {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch("/login", { method: "POST", headers, body: JSON.stringify({ token }) });
  if (!response.ok) throw new Refusal(response.status, (await response.text()).trim());
  showLogin(false);
  listeners.forEach((listener) => listener());
}

// The token comes in the fragment of the printed address, which no browser sends. It is taken out of the address bar.
export async function loginByFragment() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  try { await login(token); } catch (error) { showLogin(true); byId("login-error").textContent = error.message; }
}

export function setUpLogin() {
  byId("login-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    byId("login-error").textContent = "";
    try { await login(byId("token").value); byId("token").value = ""; } catch (error) { byId("login-error").textContent = error.message; }
  });
}
