//! A real browser: headless Chromium, driven over WebDriver (W3C) by its own driver.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Client;
use super::files::Directory;
use super::process::Process;
use super::tools::needed;
use super::wait::within;

/// How long a browser may take to start on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A browser with one page.
pub struct Browser {
    _driver: Process,
    address: SocketAddr,
    session: String,
    /// Holds its profile.
    _directory: Directory,
}

impl Browser {
    /// With a window of this size.
    #[track_caller]
    pub fn start(width: u32, height: u32) -> Self {
        needed("Chromium's driver", Command::new("chromedriver").arg("--version"), &["chromium", "chromium-driver"]);
        let directory = Directory::new();
        // It takes a port that is free for IPv6, and ends where another has just taken the same for IPv4.
        let driver = (0..20).find_map(|_| driver(&directory));
        let (driver, port) = driver.expect("chromedriver has no port");
        let profile = format!("--user-data-dir={}", directory.join("profile").display());
        let arguments = [
            "--headless",
            // Root has no sandbox, and the page is ours.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            // It must speak to nobody but the proxy.
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &format!("--window-size={width},{height}"),
            &profile,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let mut browser = Browser {
            _driver: driver,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            session: String::new(),
            _directory: directory,
        };
        let session = browser.ask("POST", "/session", &wanted);
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    #[track_caller]
    pub fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    /// Shows pages as a phone with a screen of this size does.
    #[track_caller]
    pub fn be_phone(&self, width: u32, height: u32) {
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 2, "mobile": true });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": screen });
        self.command("goog/cdp/execute", &command);
    }

    /// Asks for light or dark colours, as the system does.
    #[track_caller]
    pub fn prefer(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        let command = json!({ "cmd": "Emulation.setEmulatedMedia", "params": { "features": [feature] } });
        self.command("goog/cdp/execute", &command);
    }

    /// What this body of a function returns on the page.
    #[track_caller]
    pub fn run(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The text of the first element that matches, or nothing.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let text = self.run(&format!("return document.querySelector({selector:?})?.textContent ?? ''"));
        text.as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.run(&format!("document.querySelector({selector:?}).click()"));
    }

    /// What the page has written to its console since the last look, severe things and others.
    #[track_caller]
    pub fn console(&self) -> Vec<String> {
        self.log("browser").iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Every address that the page has asked for since the last look.
    #[track_caller]
    pub fn requested(&self) -> Vec<String> {
        let entries = self.log("performance");
        let events = entries.iter().filter_map(|entry| serde_json::from_str::<Value>(entry["message"].as_str()?).ok());
        let sent = events.filter(|event| event["message"]["method"] == "Network.requestWillBeSent");
        let urls =
            sent.map(|event| event["message"]["params"]["request"]["url"].as_str().unwrap_or_default().to_owned());
        // What the browser's own first page loads comes from itself.
        urls.filter(|url| url.starts_with("http") || url.starts_with("ws")).collect()
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        self.command("se/log", &json!({ "type": kind })).as_array().cloned().unwrap_or_default()
    }

    #[track_caller]
    fn command(&self, command: &str, body: &Value) -> Value {
        self.ask("POST", &format!("/session/{}/{command}", self.session), body)
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let mut client = Client::connect(self.address);
        client.set_patience(START);
        let response = client.exchange(format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        ));
        let answer: Value = serde_json::from_str(&response.text()).unwrap_or_default();
        assert_eq!(response.status, 200, "{method} {path}: {answer}");
        answer["value"].clone()
    }
}

/// The driver and its port; `None` where it has ended instead.
fn driver(directory: &Directory) -> Option<(Process, u16)> {
    let mut driver = Process::start("chromedriver", Command::new("chromedriver").arg("--port=0"), directory);
    let port = within(START, || {
        let said = driver.stdout();
        let port = said
            .split("started successfully on port ")
            .nth(1)
            .and_then(|port| port.split(|character: char| !character.is_ascii_digit()).next()?.parse::<u16>().ok());
        if port.is_none() && driver.ended().is_some() { Some(None) } else { port.map(Some) }
    });
    port.flatten().map(|port| (driver, port))
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser; killed before, it would leave it behind.
        if let Ok(mut client) = Client::try_connect(self.address) {
            client.send(format!("DELETE /session/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", self.session).as_bytes());
            let _ = client.response_or_end("DELETE");
        }
    }
}
