// Requests to the server, and its events as they happen.

export class Missing extends Error {}

export async function ask(address) {
  const answer = await fetch(address, { headers: { accept: "application/json" } });
  if (answer.status === 401) {
    location.assign("/login");
    return new Promise(() => {}); // the browser is about to leave this page
  }
  if (answer.status === 404) throw new Missing(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  return answer.json();
}

// The address of a face; the slashes in a key are kept.
export function addressOf(face, part = "") {
  const key = face.key.split("/").map(encodeURIComponent).join("/");
  // The number changes the URL when a better picture arrives, so that the browser does not show a cached one.
  return `/api/faces/${key}${part && `/${part}?v=${face.number}`}`;
}

// Listens forever. `on` has one function per kind of event, plus `open` (connected, or events were missed: fetch the
// current faces) and `lost` (the connection was lost).
export function listen(on) {
  let source;
  let again;
  const connect = () => {
    clearTimeout(again);
    source?.close();
    source = new EventSource("/api/events");
    source.onopen = () => on.open();
    source.onerror = () => {
      on.lost();
      // The browser reconnects automatically, except after a response that was not a stream. In that case, `ask` leads
      // to the login page if the session has expired.
      if (source.readyState === EventSource.CLOSED) {
        ask("/api/streams").catch(() => {});
        again = setTimeout(connect, 4000);
      }
    };
    source.addEventListener("gap", () => on.open());
    for (const kind of ["face", "streams", "stream", "removed"]) {
      source.addEventListener(kind, (event) => on[kind](JSON.parse(event.data)));
    }
  };
  connect();
}
