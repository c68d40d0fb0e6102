// Requests to the gateway, and what becomes of those that fail.

const REQUEST_TIMEOUT_MS = 10_000;

/** A refused or failed request. `status` is 0 when there was no answer; `message` is a sentence for people. */
export class RequestError extends Error {
  constructor(status, message, retryAfterMs = 0) {
    super(message);
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }
}

/** One HTTP exchange in JSON; resolves to the decoded body, or null when there is none. */
export async function request(method, path, { token, body, keepalive = false } = {}) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers['Content-Type'] = 'application/json';
  let response;
  let text;
  try {
    const signal = keepalive ? undefined : AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    response = await fetch(path, { method, headers, keepalive, signal, body: body && JSON.stringify(body) });
    text = await response.text();
  } catch {
    throw new RequestError(0, 'The server cannot be reached. Check your network, then try again.');
  }
  let json = null;
  try {
    json = text ? JSON.parse(text) : null;
  } catch {
    if (response.ok) throw new RequestError(0, 'The server sent an answer that is not JSON.');
  }
  if (response.ok) return json;
  const retryAfterMs = (Number(response.headers.get('Retry-After')) || 0) * 1000;
  throw new RequestError(response.status, json?.detail || `The server answered with status ${response.status}.`, retryAfterMs);
}
