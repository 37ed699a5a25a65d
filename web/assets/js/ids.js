// randomID returns an id nobody can guess. crypto.randomUUID exists only on https and loopback, and the page should
// work on a plain http address of the local network too.
export function randomID() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
