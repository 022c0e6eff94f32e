//! gRPC: all four call kinds, trailers and Trailers-Only, deadlines, and the proxy's own errors as gRPC clients see them.

use std::time::Duration;

use bytes::Bytes;
use http::Response;

use crate::support::h2::{H2Client, H2Upstream, answer, grpc, grpc_message, grpc_trailers, next, request, send_all};
use crate::support::wait::{bounded, until};
use crate::support::{Gate, Proxy, Upstream};

async fn client(proxy: &Proxy) -> H2Client {
    H2Client::connect(proxy.address("inbound")).await
}

fn started() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

// protocol: auto sends gRPC as HTTP/2 in the clear, without a word in the file.
#[tokio::test]
async fn a_unary_call_passes_with_its_trailers() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        let (body, _) = stream.read().await;
        assert_eq!(body, grpc_message(b"ask"));
        stream.grpc_ok(b"answer").await;
    });
    let proxy = Proxy::before(upstream.address());
    let answer = client(&proxy).await.exchange(grpc("/shop.Cart/Add"), grpc_message(b"ask")).await;
    assert_eq!((answer.status, answer.trailer("grpc-status"), answer.header("grpc-status")), (200, Some("0"), None));
    assert_eq!(answer.body, grpc_message(b"answer"));
    let head = upstream.head(0);
    assert_eq!(head.uri.path(), "/shop.Cart/Add");
    assert_eq!(head.headers["te"], "trailers");
    assert_eq!(head.headers["content-type"], "application/grpc");
    assert!(!head.headers.contains_key("content-length"));
}

#[tokio::test]
async fn auto_sends_only_grpc_as_http_2() {
    let upstream = Upstream::ok();
    let proxy = Proxy::before(upstream.address());
    let request = request("POST", "/").header("content-type", "application/json").body(()).unwrap();
    assert_eq!(client(&proxy).await.exchange(request, "{}").await.status, 200);
    assert_eq!(upstream.request(0).head.start, "POST / HTTP/1.1");
}

#[tokio::test]
async fn messages_of_a_server_stream_pass_one_by_one() {
    let gate = Gate::new();
    let opened = gate.clone();
    let upstream = H2Upstream::streams(move |mut stream| {
        let gate = opened.clone();
        async move {
            let mut send = stream.respond.send_response(started(), false).unwrap();
            send_all(&mut send, grpc_message(b"first"), false).await;
            gate.opened("the client to have the first message").await;
            send_all(&mut send, grpc_message(b"second"), false).await;
            send.send_trailers(grpc_trailers(0)).unwrap();
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let (response, mut stream) = client.start(grpc("/a.B/Stream"), false).await;
    send_all(&mut stream, grpc_message(b"go"), true).await;
    let mut body = bounded("headers", response).await.unwrap().into_body();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), grpc_message(b"first"));
    gate.open();
    assert_eq!(next(&mut body).await.unwrap().unwrap(), grpc_message(b"second"));
    assert!(next(&mut body).await.unwrap().is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn messages_of_a_client_stream_pass_one_by_one() {
    let gate = Gate::new();
    let told = gate.clone();
    let upstream = H2Upstream::streams(move |mut stream| {
        let gate = told.clone();
        async move {
            assert_eq!(next(&mut stream.body).await.unwrap().unwrap(), grpc_message(b"first"));
            gate.open();
            let (rest, _) = stream.read().await;
            assert_eq!(rest, grpc_message(b"second"));
            stream.grpc_ok(b"both").await;
        }
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let (response, mut stream) = client.start(grpc("/a.B/Collect"), false).await;
    send_all(&mut stream, grpc_message(b"first"), false).await;
    gate.opened("the first message at the upstream").await;
    send_all(&mut stream, grpc_message(b"second"), true).await;
    let answer = answer(response).await.unwrap();
    assert_eq!((answer.body, answer.trailers["grpc-status"].to_str().unwrap()), (grpc_message(b"both").to_vec(), "0"));
}

#[tokio::test]
async fn a_conversation_passes() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        let mut send = stream.respond.send_response(started(), false).unwrap();
        while let Ok(Some(message)) = next(&mut stream.body).await {
            send_all(&mut send, message, false).await;
        }
        send.send_trailers(grpc_trailers(0)).unwrap();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let (response, mut stream) = client.start(grpc("/a.B/Talk"), false).await;
    let mut body = bounded("headers before any message", response).await.unwrap().into_body();
    for nth in 0..20u8 {
        send_all(&mut stream, grpc_message(&[nth; 100]), false).await;
        assert_eq!(next(&mut body).await.unwrap().unwrap(), grpc_message(&[nth; 100]));
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert!(next(&mut body).await.unwrap().is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn trailers_only_stays_one_block() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        let response = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "5")
            .header("grpc-message", "no%20such%20thing");
        stream.respond.send_response(response.body(()).unwrap(), true).unwrap();
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let (response, mut stream) = client.start(grpc("/a.B/Get"), false).await;
    send_all(&mut stream, grpc_message(b"x"), true).await;
    let response = bounded("headers", response).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "5");
    assert_eq!(response.headers()["grpc-message"], "no%20such%20thing");
    assert!(response.body().is_end_stream(), "headers and status came in two frames");
    tokio::task::spawn_blocking(move || {
        let line = proxy.log_line("/a.B/Get");
        assert_eq!((&line["code"], &line["grpc_code"]), (&200.into(), &5.into()), "{line}");
        proxy.metric_reaches("outrigger_requests_total", &[("code", "200"), ("grpc_code", "5")], 1.0);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_status_in_the_trailers_is_what_is_logged_and_counted() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        let mut send = stream.respond.send_response(started(), false).unwrap();
        send_all(&mut send, grpc_message(b"half"), false).await;
        send.send_trailers(grpc_trailers(13)).unwrap();
    });
    let proxy = Proxy::before(upstream.address());
    let answer = client(&proxy).await.exchange(grpc("/a.B/Fail"), grpc_message(b"x")).await;
    assert_eq!(answer.grpc_status(), Some("13"));
    tokio::task::spawn_blocking(move || {
        assert_eq!(proxy.log_line("/a.B/Fail")["grpc_code"], 13);
        proxy.metric_reaches("outrigger_requests_total", &[("grpc_code", "13")], 1.0);
    })
    .await
    .unwrap();
}

/// An error of the proxy itself, as a gRPC client sees it.
#[track_caller]
fn failed(answer: &crate::support::h2::Answer, status: &str, reason: &str) {
    assert_eq!((answer.status, answer.grpc_status()), (200, Some(status)), "{answer:?}");
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/grpc")), "{answer:?}");
    assert_eq!(answer.header("x-outrigger-reason"), Some(format!("{reason}; hop=inbound").as_str()));
    let message = answer.trailer("grpc-message").or_else(|| answer.header("grpc-message")).unwrap_or_default();
    assert!(
        !message.is_empty() && message.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
        "grpc-message: {message:?}"
    );
    assert!(answer.body.is_empty(), "{answer:?}");
}

#[tokio::test]
async fn errors_of_the_proxy_are_grpc_statuses() {
    let gone = Upstream::ok();
    let proxy = Proxy::before(gone.address());
    gone.stop_accepting();
    failed(&client(&proxy).await.exchange(grpc("/a.B/Get"), grpc_message(b"x")).await, "14", "connect_failure");

    let proxy = Proxy::start(
        "listeners:\n  inbound: { address: 127.0.0.1:0, routes: [{ match: { path: /known }, respond: { status: 204 } }] }\n",
        &[],
    );
    failed(&client(&proxy).await.exchange(grpc("/a.B/Get"), grpc_message(b"x")).await, "12", "no_route");

    let mute = H2Upstream::streams(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    });
    let proxy = Proxy::before_upstream(mute.address(), ", timeouts: { response: 200ms }");
    failed(&client(&proxy).await.exchange(grpc("/a.B/Get"), grpc_message(b"x")).await, "4", "response_timeout");

    let content_types = ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"];
    for content_type in content_types {
        let request =
            request("POST", "/a.B/Get").header("content-type", content_type).header("te", "trailers").body(()).unwrap();
        failed(&client(&proxy).await.exchange(request, grpc_message(b"x")).await, "4", "response_timeout");
    }
}

// Not every type that begins so is gRPC (gRPC over HTTP/2, "Requests").
#[tokio::test]
async fn what_only_looks_like_grpc_gets_plain_errors() {
    let gone = Upstream::ok();
    let proxy = Proxy::before(gone.address());
    gone.stop_accepting();
    for content_type in ["application/grpc-web", "application/grpcx", "text/plain"] {
        let request = request("POST", "/a.B/Get").header("content-type", content_type).body(()).unwrap();
        let answer = client(&proxy).await.exchange(request, "x").await;
        assert_eq!((answer.status, answer.grpc_status()), (503, None), "{content_type}: {answer:?}");
    }
}

// The deadline that the client set holds here as well, and what is left of it is passed on.
#[tokio::test]
async fn a_clients_deadline_is_kept_and_passed_on() {
    let upstream = H2Upstream::streams(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let call = |timeout: &str| {
        let builder = request("POST", "/a.B/Get").header("content-type", "application/grpc").header("te", "trailers");
        builder.header("grpc-timeout", timeout).body(()).unwrap()
    };
    failed(&client.exchange(call("300m"), grpc_message(b"x")).await, "4", "deadline_exceeded");
    let sent = upstream.head(0).headers["grpc-timeout"].to_str().unwrap().to_owned();
    let left = duration(&sent);
    assert!(left <= Duration::from_millis(300) && left > Duration::from_millis(100), "grpc-timeout: {sent}");

    let (response, mut stream) = client.start(call("1H"), false).await;
    send_all(&mut stream, grpc_message(b"x"), true).await;
    until("the second call at the upstream", || upstream.heads().len() == 2).await;
    let sent = upstream.head(1).headers["grpc-timeout"].to_str().unwrap().to_owned();
    assert!(
        duration(&sent) <= Duration::from_secs(3600) && duration(&sent) > Duration::from_secs(3500),
        "grpc-timeout: {sent}"
    );
    drop((response, stream));
}

/// gRPC's wire form: at most eight digits and a unit.
fn duration(text: &str) -> Duration {
    let (digits, unit) = text.split_at(text.len() - 1);
    assert!((1..=8).contains(&digits.len()), "{text}");
    let number: u64 = digits.parse().unwrap();
    match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => panic!("{text}"),
    }
}

#[tokio::test]
async fn a_server_stream_outlives_the_response_timeout() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        let mut send = stream.respond.send_response(started(), false).unwrap();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(120)).await;
            send_all(&mut send, grpc_message(b"tick"), false).await;
        }
        let _ = send.send_trailers(grpc_trailers(0));
    });
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { response: 300ms }");
    let answer = client(&proxy).await.exchange(grpc("/a.B/Watch"), grpc_message(b"x")).await;
    assert_eq!((answer.grpc_status(), answer.body.len()), (Some("0"), 5 * 9));
}

// While the client streams, no answer is due yet.
#[tokio::test]
async fn a_conversation_outlives_the_response_timeout() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        let (body, _) = stream.read().await;
        stream.grpc_ok(&body).await;
    });
    let proxy = Proxy::before_upstream(upstream.address(), ", timeouts: { response: 200ms }");
    let mut client = client(&proxy).await;
    let (response, mut stream) = client.start(grpc("/a.B/Collect"), false).await;
    for _ in 0..4 {
        send_all(&mut stream, grpc_message(b"x"), false).await;
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(answer(response).await.unwrap().grpc_status(), Some("0"));
}

#[tokio::test]
async fn a_call_that_breaks_off_ends_with_the_status_of_what_broke_it() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        let mut send = stream.respond.send_response(started(), false).unwrap();
        send_all(&mut send, grpc_message(b"half"), false).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        send.send_reset(h2::Reason::INTERNAL_ERROR);
    });
    let proxy = Proxy::before(upstream.address());
    let mut client = client(&proxy).await;
    let answer = client.exchange(grpc("/a.B/Watch"), grpc_message(b"x")).await;
    assert_eq!(answer.trailer("grpc-status"), Some("14"), "{answer:?}");
    assert!(
        answer.trailer("grpc-message").is_some_and(|message| message.starts_with("upstream_reset: ")),
        "{answer:?}"
    );
    let line = proxy.log_line("/a.B/Watch");
    assert_eq!((&line["reason"], &line["grpc_code"]), (&"upstream_reset".into(), &serde_json::Value::Null), "{line}");
}

// Success is decided by the trailers, not by `:status`.
#[tokio::test]
async fn attempts_are_counted_by_what_their_trailers_say() {
    let upstream = H2Upstream::streams(|mut stream| async move {
        stream.read().await;
        let mut send = stream.respond.send_response(started(), false).unwrap();
        send_all(&mut send, grpc_message(b"half"), false).await;
        send.send_trailers(grpc_trailers(14)).unwrap();
    });
    let proxy = Proxy::before(upstream.address());
    let answer = client(&proxy).await.exchange(grpc("/a.B/C"), grpc_message(b"ask")).await;
    assert_eq!(answer.trailer("grpc-status"), Some("14"));
    let counted = "outrigger_attempt_duration_seconds_count";
    proxy.metric_reaches(counted, &[("outcome", "gateway_error")], 1.0);
    assert_eq!(proxy.metric(counted, &[]), 1.0);
}
