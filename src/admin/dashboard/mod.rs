//! The dashboard: a page that shows what `/events`, `/tap` and `/config/history` tell, live. All of it is in the binary.
//!
//! The page asks nothing of any other origin, and needs no build: modules as browsers load them. `vendor/` holds the two
//! libraries it stands on (uPlot draws curves, Preact with htm keeps the page current), with their licences.

use http::HeaderValue;

/// Nothing from elsewhere, nothing inline, in no frame.
pub(super) const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// A file of the page.
pub(super) struct Asset {
    name: &'static str,
    pub(super) content_type: &'static str,
    pub(super) content: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

macro_rules! assets {
    ($($name:literal: $content_type:ident = $file:literal),* $(,)?) => {
        &[$(Asset { name: $name, content_type: $content_type, content: include_str!($file) }),*]
    };
}

/// What stands at `/` for browsers.
pub(super) const PAGE: Asset = Asset { name: "", content_type: HTML, content: include_str!("page.html") };

const ASSETS: &[Asset] = assets! {
    "app.js": SCRIPT = "app.js",
    "charts.js": SCRIPT = "charts.js",
    "configuration.js": SCRIPT = "configuration.js",
    "history.js": SCRIPT = "history.js",
    "routes.js": SCRIPT = "routes.js",
    "stream.js": SCRIPT = "stream.js",
    "tap.js": SCRIPT = "tap.js",
    "traffic.js": SCRIPT = "traffic.js",
    "upstreams.js": SCRIPT = "upstreams.js",
    "words.js": SCRIPT = "words.js",
    "style.css": STYLE = "style.css",
    "preact.js": SCRIPT = "vendor/preact.js",
    "uplot.js": SCRIPT = "vendor/uplot.js",
    "uplot.css": STYLE = "vendor/uplot.css",
    "icon.svg": IMAGE = "icon.svg",
};

const IMAGE: &str = "image/svg+xml";

/// The file at this path, where it is one of the page's.
pub(super) fn asset(path: &str) -> Option<&'static Asset> {
    let name = path.strip_prefix("/dashboard/")?;
    ASSETS.iter().find(|asset| asset.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_page_loads_is_there() {
        let loads = ASSETS.iter().chain([&PAGE]).flat_map(|asset| {
            let texts = asset.content.split(['"', '\'']);
            texts.filter_map(|text| text.strip_prefix("./").or_else(|| text.strip_prefix("dashboard/")))
        });
        let loads: Vec<&str> = loads.collect();
        assert!(loads.contains(&"preact.js") && loads.contains(&"uplot.css"), "{loads:?}");
        for name in loads {
            assert!(asset(&format!("/dashboard/{name}")).is_some(), "{name} is loaded and not served");
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        for asset in ASSETS.iter().chain([&PAGE]).filter(|asset| asset.content_type != IMAGE) {
            for prefix in ["src=\"http", "src=\"//", "href=\"http", "href=\"//", "@import", "url(http"] {
                assert!(!asset.content.contains(prefix), "{} has {prefix}", asset.name);
            }
        }
    }
}
