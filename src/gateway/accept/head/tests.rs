use super::*;
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits { head_bytes: 400, fields: 4, uri_bytes: 60 };

fn head(request: &str) -> Head {
    match check(request.as_bytes(), &LIMITS) {
        Verdict::Complete(head) => head,
        other => panic!("{request:?}: {other:?}"),
    }
}

fn refusal(request: &[u8]) -> Refusal {
    match check(request, &LIMITS) {
        Verdict::Refused(refusal) => refusal,
        other => panic!("{}: {other:?}", request.escape_ascii()),
    }
}

#[test]
fn bodies_have_the_length_the_head_says() {
    let body_of = |fields: &str| head(&format!("POST /p HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).body;
    assert_eq!(body_of(""), BodyLength::None);
    assert_eq!(body_of("Content-Length: 0\r\n"), BodyLength::Length(0));
    assert_eq!(body_of("content-length:\t12 \r\n"), BodyLength::Length(12));
    assert_eq!(body_of("Content-Length: 9223372036854775807\r\n"), BodyLength::Length(i64::MAX as u64));
    assert_eq!(body_of("Transfer-Encoding: Chunked\r\n"), BodyLength::Chunked);
}

#[test]
fn the_head_ends_at_its_empty_line() {
    let request = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";
    let surplus = format!("{request}GET /b HTTP/1.1\r\n");
    assert_eq!(head(&surplus).head_len, request.len());

    let led = head(&format!("\r\n{request}"));
    assert_eq!((led.head_start, led.head_len), (2, request.len() + 2));
    assert_eq!(led.target, 6..8);
}

#[test]
fn old_and_upgrading_clients_are_recognised() {
    assert!(head("GET / HTTP/1.0\r\n\r\n").http10, "HTTP/1.0 needs no Host");
    let upgrade = |version: &str, protocol: &str| {
        let fields = format!("Connection: Upgrade\r\nUpgrade: {protocol}\r\n");
        head(&format!("GET / HTTP/{version}\r\nHost: x\r\n{fields}\r\n")).websocket
    };
    assert!(upgrade("1.1", "WebSocket"));
    assert!(!upgrade("1.1", "h2c"));
    assert!(!upgrade("1.0", "websocket"));
}

#[test]
fn an_absolute_target_becomes_a_path() {
    let rewritten = |target: &str, host: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        head(&request).rewritten_target(request.as_bytes()).map(|target| String::from_utf8(target).unwrap())
    };
    assert_eq!(rewritten("/a%2Fb?q=%00", "x"), None);
    assert_eq!(rewritten("http://x/a?b", "x").as_deref(), Some("/a?b"));
    assert_eq!(rewritten("HTTP://X:80/a", "x:80").as_deref(), Some("/a"));
    assert_eq!(rewritten("https://[::1]:8000", "[::1]:8000").as_deref(), Some("/"));
    assert_eq!(rewritten("http://x?q", "x").as_deref(), Some("/?q"));
}

#[test]
fn each_mistake_is_refused_with_its_name() {
    let with_fields = |fields: &str| format!("GET / HTTP/1.1\r\n{fields}\r\n");
    let with_line = |line: &str| format!("{line}\r\nHost: x\r\n\r\n");
    let cases: Vec<(String, &str)> = vec![
        ("GET / HTTP/1.1\nHost: x\n\n".into(), "bare line feed"),
        ("GET / HTTP/1.1\r\nHost: x\n".into(), "bare line feed"),
        ("\nGET".into(), "bare line feed"),
        ("\r\n\r\n".into(), "empty line ahead"),
        ("\rGET".into(), "carriage return"),
        (" GET / HTTP/1.1\r\n".into(), "is this HTTP"),
        ("\u{16}\u{3}\u{1}".into(), "is this HTTP"),
        ("a".repeat(33), "is this HTTP"),
        ("GET\r\n".into(), "request line"),
        ("GET /\r\n".into(), "request line"),
        ("GE\u{7f}T / HTTP/1.1\r\n".into(), "method"),
        ("GET  / HTTP/1.1\r\n".into(), "version"),
        (with_line("CONNECT x:80 HTTP/1.1"), "CONNECT"),
        (with_line("TRACE / HTTP/1.1"), "TRACE"),
        (with_line("OPTIONS * HTTP/1.1"), "neither a path"),
        (with_line("GET x HTTP/1.1"), "neither a path"),
        (with_line("GET ?q HTTP/1.1"), "neither a path"),
        (with_line("GET ftp://x/ HTTP/1.1"), "neither a path"),
        (with_line("GET http:/x HTTP/1.1"), "neither a path"),
        (with_line("GET http:///a HTTP/1.1"), "authority"),
        (with_line("GET http://u@x/ HTTP/1.1"), "authority"),
        (with_line("GET http://y/ HTTP/1.1"), "differs from Host"),
        (with_line("GET /a#b HTTP/1.1"), "percent-encoded"),
        (with_line("GET /\u{e4} HTTP/1.1"), "percent-encoded"),
        (with_line("GET /<a> HTTP/1.1"), "percent-encoded"),
        (with_line("GET /a b HTTP/1.1"), "version"),
        (with_line("GET / HTTP/2.0"), "version"),
        (with_line("GET / HTTP/0.9"), "version"),
        (with_line("GET / http/1.1"), "version"),
        (with_line("GET / HTTP/1.1 "), "version"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), "version"),
        (with_fields(""), "no Host"),
        (with_fields("Host: x\r\nHost: x\r\n"), "more than one Host"),
        (with_fields("Host:\r\n"), "Host is not"),
        (with_fields("Host: a b\r\n"), "Host is not"),
        (with_fields("Host: u@x\r\n"), "Host is not"),
        (with_fields("Host: x:65536\r\n"), "Host is not"),
        (with_fields("Host: x/y\r\n"), "Host is not"),
        (with_fields("Host: [::1\r\n"), "Host is not"),
        (with_fields("Host: x\r\n folded: y\r\n"), "folded"),
        (with_fields("Host: x\r\nA : y\r\n"), "before the colon"),
        (with_fields("Host: x\r\nA\u{b}: y\r\n"), "not a token"),
        (with_fields("Host: x\r\n: y\r\n"), "not a token"),
        (with_fields("Host: x\r\nA\r\n"), "without a colon"),
        (with_fields("Host: x\r\nA: \0\r\n"), "control character"),
        (with_fields("Host: x\r\nA: b\rc\r\n"), "control character"),
        (with_fields("Host: x\r\nA: b\r\r\n"), "control character"),
        (with_fields("Host: x\r\nA: \u{7f}\r\n"), "control character"),
        (with_fields("Host: x\r\nConnection: close, Cookie\r\n"), "not about the connection"),
        (with_fields("Host: x\r\nConnection: a b\r\n"), "not a token"),
        (with_fields("Host: x\r\nConnection: a,b,c,d,e,f,g\r\nConnection: h,i,j\r\n"), "too many options"),
        (with_fields("Host: x\r\nUpgrade: websocket\r\n"), "without Connection: upgrade"),
        (with_fields("Host: x\r\nUpgrade: h2c, websocket\r\n"), "more than websocket"),
        (with_fields("Host: x\r\nUpgrade: websocket/13\r\n"), "more than websocket"),
        (with_fields("Host: x\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n"), "more than websocket"),
        (with_fields("Host: x\r\nContent-Length: 1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"), "without a body"),
        (with_fields("Host: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n"), "more than one Content-Length"),
        (with_fields("Host: x\r\nContent-Length: 1, 1\r\n"), "one decimal number"),
        (with_fields("Host: x\r\nContent-Length: +1\r\n"), "one decimal number"),
        (with_fields("Host: x\r\nContent-Length: -1\r\n"), "one decimal number"),
        (with_fields("Host: x\r\nContent-Length: 0x1\r\n"), "one decimal number"),
        (with_fields("Host: x\r\nContent-Length:\r\n"), "one decimal number"),
        (with_fields("Host: x\r\nContent-Length: 9223372036854775808\r\n"), "one decimal number"),
        (with_fields("Host: x\r\nTransfer-Encoding: gzip, chunked\r\n"), "other than chunked"),
        (with_fields("Host: x\r\nTransfer-Encoding: identity\r\n"), "other than chunked"),
        (with_fields("Host: x\r\nTransfer-Encoding: chunked, chunked\r\n"), "other than chunked"),
        (with_fields("Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), "other than chunked"),
        (with_fields("Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n"), "both"),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), "on HTTP/1.0"),
    ];
    for (request, words) in cases {
        let refusal = refusal(request.as_bytes());
        assert_eq!(refusal.reason, Reason::BadRequest, "{request:?}");
        assert!(refusal.detail.contains(words), "{request:?}: {}", refusal.detail);
    }
}

#[test]
fn each_limit_has_its_own_reason_and_is_exact() {
    let uri = |len: usize| format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", "/".repeat(len));
    assert_eq!(head(&uri(60)).target, 4..64);
    assert_eq!(refusal(uri(61).as_bytes()).reason, Reason::UriTooLong);
    assert_eq!(refusal(&uri(500).as_bytes()[..65]).reason, Reason::UriTooLong, "known before the line has ended");

    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a:b\r\n".repeat(count));
    assert_eq!(head(&fields(3)).body, BodyLength::None);
    assert_eq!(refusal(fields(4).as_bytes()).reason, Reason::HeadersTooLarge);

    let sized = |size: usize| {
        let mut request = b"GET / HTTP/1.1\r\nHost: x\r\na:".to_vec();
        request.resize(size - 4, b'b');
        [request, b"\r\n\r\n".to_vec()].concat()
    };
    assert!(matches!(check(&sized(400), &LIMITS), Verdict::Complete(_)));
    assert_eq!(refusal(&sized(401)).reason, Reason::HeadersTooLarge);
    assert_eq!(check(&sized(401)[..399], &LIMITS), Verdict::NeedMore);
    assert_eq!(refusal(&sized(401)[..400]).reason, Reason::HeadersTooLarge);
}

#[test]
fn an_endless_version_is_refused_soon() {
    let request = [b"GET ".to_vec(), vec![b'/'; 60], vec![b' '; 12]].concat();
    assert_eq!(refusal(&request).detail, NO_REQUEST_LINE.detail);
}

/// Heads that are right or nearly so, which arbitrary bytes never are.
fn nearly_a_head() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "GET",
        "POST",
        " ",
        "/",
        "/a?b",
        "http://x/",
        "*",
        "HTTP/1.1",
        "HTTP/1.0",
        "\r\n",
        "\r\n",
        "\r\n\r\n",
        "\r",
        "\n",
        "GET / HTTP/1.1\r\n",
        "GET /a HTTP/1.1\r\nHost: x\r\n",
        "Host: x\r\n",
        "Content-Length: 3\r\n",
        "Content-Length",
        "Transfer-Encoding: chunked\r\n",
        ":",
        "a:b\r\n",
        "\0",
        "\u{e4}",
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\n",
        "GET ////////////////////////////////////////////////////////////////////////",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "a: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let _ = check(&bytes, &LIMITS);
    }

    #[test]
    fn pieces_mean_the_same_as_the_whole(bytes in nearly_a_head(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4)) {
        let whole = check(&bytes, &LIMITS);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([bytes.len()]).collect();
        ends.sort_unstable();
        let mut reader = HeadReader::new(LIMITS);
        let mut verdict = Verdict::NeedMore;
        for end in ends {
            if verdict == Verdict::NeedMore {
                verdict = reader.advance(&bytes[..end]);
            }
        }
        prop_assert_eq!(verdict, whole);
    }

    #[test]
    fn byte_by_byte_means_the_same_as_the_whole(bytes in nearly_a_head()) {
        let mut reader = HeadReader::new(LIMITS);
        let verdict = (0..=bytes.len()).map(|end| reader.advance(&bytes[..end])).find(|verdict| *verdict != Verdict::NeedMore);
        prop_assert_eq!(verdict.unwrap_or(Verdict::NeedMore), check(&bytes, &LIMITS));
    }

    /// What we accept means the same to the parser that Pingora uses.
    #[test]
    fn httparse_agrees_with_what_is_accepted(bytes in nearly_a_head()) {
        if let Verdict::Complete(head) = check(&bytes, &LIMITS) {
            let mut fields = [httparse::EMPTY_HEADER; 8];
            let mut request = httparse::Request::new(&mut fields);
            prop_assert_eq!(request.parse(&bytes), Ok(httparse::Status::Complete(head.head_len)));
            prop_assert_eq!(request.path.map(str::as_bytes), Some(&bytes[head.target]));
            prop_assert_eq!(request.version, Some(u8::from(!head.http10)));
        }
    }
}

#[test]
fn a_plain_head_is_about_the_service_alone() {
    let plain = |fields: &str| {
        let request = format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut reader = HeadReader::new(HeadLimits::default());
        let Verdict::Complete(head) = reader.advance(request.as_bytes()) else { panic!("refused: {fields}") };
        assert_eq!(head.method(request.as_bytes()), b"GET");
        (head.is_plain && reader.index().is_complete(), head.wants_close)
    };
    assert_eq!(plain(""), (true, false));
    assert_eq!(plain("Connection: Keep-Alive\r\nContent-Length: 5\r\n"), (true, false));
    assert_eq!(plain("connection: close\r\nAccept: */*\r\n"), (true, true));
    let special = [
        "Connection: close, keep-alive",
        "Connection: x-hop",
        "Connection: close\r\nConnection: close",
        "Transfer-Encoding: chunked",
        "Upgrade: h2c",
        "Upgrade: websocket\r\nConnection: upgrade",
        "Expect: 100-continue",
        "TE: trailers",
        "Trailer: Sum",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "proxy-authorization: Basic eDp5",
        "HTTP2-Settings: AAMAAABk",
    ];
    for fields in special {
        assert!(!plain(&format!("{fields}\r\n")).0, "{fields}");
    }
    assert!(plain(&"A: b\r\n".repeat(63)).0);
    assert!(!plain(&"A: b\r\n".repeat(64)).0, "more than are found again");
    let old = b"GET /x HTTP/1.0\r\n\r\n";
    let whole = b"GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n";
    for request in [&old[..], whole] {
        assert!(matches!(check(request, &HeadLimits::default()), Verdict::Complete(Head { is_plain: false, .. })));
    }
}

#[test]
fn fields_are_found_where_they_stand() {
    let request = b"\r\nPUT /x HTTP/1.1\r\nHost:a\r\nEmpty:\r\nX-Long:  b c \t\r\n\r\n";
    let mut reader = HeadReader::new(HeadLimits::default());
    let Verdict::Complete(head) = reader.advance(request) else { panic!("refused") };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let found: Vec<_> = reader.index().fields(request).map(|(name, value)| (text(name), text(value))).collect();
    let expected = [("Host", "a"), ("Empty", ""), ("X-Long", "b c")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!((found.as_slice(), head.method(request)), (&expected[..], &b"PUT"[..]));
}
