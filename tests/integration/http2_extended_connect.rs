//! RFC 8441: WebSockets on streams.

use bytes::Bytes;
use http::Request;

use crate::support::h2::{H2Client, answer, get, next, send_all};
use crate::support::wait::bounded;
use crate::support::{Proxy, Upstream};

async fn client(proxy: &Proxy) -> H2Client {
    H2Client::connect(proxy.address("inbound")).await
}

// RFC 8441: a WebSocket on a stream becomes an Upgrade at an HTTP/1 upstream.
#[tokio::test]
async fn extended_connect_becomes_an_upgrade() {
    let upstream = Upstream::scripted(|served| {
        let request = served.request_head().unwrap();
        assert_eq!(request.head.start, "GET /socket?room=1 HTTP/1.1");
        assert!(request.head.lists("connection", "upgrade"), "{}", request.head);
        assert_eq!(request.head.get("upgrade"), Some("websocket"));
        assert_eq!(request.head.get("sec-websocket-version"), Some("13"));
        assert_eq!(request.head.get("sec-websocket-key").map(str::len), Some(24), "RFC 6455, 4.1: {}", request.head);
        assert!(!request.head.has("content-length") && !request.head.has("transfer-encoding"), "{}", request.head);
        // RFC 6455, 4.2.2; a proxy that checks the key's digest would find this one right only for the sample nonce.
        served.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
            accept_key(request.head.get("sec-websocket-key").unwrap()),
        ));
        loop {
            let bytes = served.some();
            if bytes.is_empty() {
                return;
            }
            served.send(bytes);
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let connect = |path: &str| {
        Request::builder()
            .method("CONNECT")
            .uri(format!("http://app.test{path}"))
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "chat")
            .extension(h2::ext::Protocol::from_static("websocket"))
            .body(())
            .unwrap()
    };
    let (response, mut stream) = client.start(connect("/socket?room=1"), false).await;
    let response = bounded("the handshake", response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(name == "sec-websocket-accept" || !response.headers().contains_key(name), "{name}");
    }
    let mut body = response.into_body();
    for message in ["\u{1}\u{5}hello", "again"] {
        send_all(&mut stream, message.into(), false).await;
        assert_eq!(next(&mut body).await.unwrap().unwrap(), message);
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert!(next(&mut body).await.unwrap().is_none());
}

/// Base64 of SHA-1 of key and GUID (RFC 6455, 4.2.2), by the tools every machine has.
fn accept_key(key: &str) -> String {
    let script = "import base64,hashlib,sys;print(base64.b64encode(hashlib.sha1((sys.argv[1]+'258EAFA5-E914-47DA-95CA-C5AB0DC85B11').encode()).digest()).decode())";
    let output = std::process::Command::new("python3").args(["-c", script, key]).output().expect("python3 is needed");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

// What speaks HTTP behind the proxy's back would go past every route, in whatever words it is asked for.
#[tokio::test]
async fn http_2_inside_a_stream_is_refused() {
    let upstream = Upstream::scripted(|served| {
        served.request_head();
        served.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
        served.rest();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    for protocol in ["h2c", "H2C", "websocket, h2c"] {
        let request = Request::builder()
            .method("CONNECT")
            .uri("http://app.test/")
            .header("http2-settings", "AAMAAABkAAQAAP__")
            .extension(h2::ext::Protocol::from(protocol))
            .body(())
            .unwrap();
        let (response, _stream) = client.start(request, false).await;
        let answer = answer(response).await.unwrap();
        let reason = answer.header("x-outrigger-reason");
        assert_eq!((answer.status, reason), (400, Some("bad_request; hop=inbound")), "{protocol}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_refused_extended_connect_is_a_plain_answer() {
    let upstream = Upstream::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let request = Request::builder()
        .method("CONNECT")
        .uri("http://app.test/socket")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .unwrap();
    let (response, _stream) = client.start(request, false).await;
    let answer = answer(response).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    assert_eq!(client.exchange(get("/next"), "").await.status, 403);
}
