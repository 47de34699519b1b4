//! The demo's index page.

/// What there is to try: path, and what it shows.
pub const PAGES: &[(&str, &str)] = &[
    ("/bytes/1MiB", "a body of any size, byte i is i mod 251"),
    ("/bytes/100MiB", "… over many congestion windows"),
    ("/slow?chunks=5&delay=300", "pieces with pauses: each arrives when it was sent"),
    ("/events", "server-sent events"),
    ("/trailers", "fields behind the body"),
    ("/headers", "the request as the origin saw it"),
    ("/status/503", "any status"),
    ("/echo", "POST: the body comes back while it is still being sent"),
];

/// The page.
pub fn index() -> String {
    let mut rows = String::new();
    for (path, text) in PAGES {
        let shown = path.replace('&', "&amp;");
        rows.push_str(&format!("<tr><td><a href=\"{shown}\">{shown}</a><td>{text}\n"));
    }
    format!(
        r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Spooky demo</title>
<style>
  :root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
  body {{ max-width: 44rem; margin: 3rem auto; padding: 0 1rem; }}
  td {{ padding: .15rem 1.5rem .15rem 0; vertical-align: top; }}
  a, code, output {{ font-family: ui-monospace, monospace; }}
  #seen {{ padding: .6rem 1rem; border-left: 4px solid #7a5cff; background: #7a5cff18; }}
</style>
<h1>It came through Spooky</h1>
<p id="seen">This page was fetched by <output id="protocol">…</output>.
<table>
{rows}</table>
<p>Events: <output id="event">none yet</output>
<script>
  const entry = performance.getEntriesByType("navigation")[0];
  document.getElementById("protocol").textContent = (entry && entry.nextHopProtocol) || "an unknown protocol";
  const source = new EventSource("/events?count=20");
  source.onmessage = e => document.getElementById("event").textContent = e.data;
  source.onerror = () => source.close();
</script>
</html>
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_links_everything() {
        let page = index();
        for (path, _) in PAGES {
            assert!(page.contains(&path.replace('&', "&amp;")), "{path}");
        }
        assert!(page.starts_with("<!doctype html>"));
    }
}
