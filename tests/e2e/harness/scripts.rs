//! The scripts that more than one test uses.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::json;

use super::upstream::Script;
use super::{After, Exchange, Gate};

/// Makes a script of a function.
pub(crate) fn script(run: impl Fn(&mut Exchange) -> io::Result<After> + Send + Sync + 'static) -> Script {
    Arc::new(run)
}

/// Answers with what it received, as JSON.
pub(crate) fn echo() -> Script {
    script(|exchange| {
        let body = exchange.read_body()?;
        let seen = &exchange.seen;
        let answer = json!({
            "method": seen.method,
            "target": seen.target,
            "headers": seen.headers,
            "body": String::from_utf8_lossy(&body),
        });
        exchange.answer("200 OK", &[("Content-Type", "application/json")], answer.to_string().as_bytes())?;
        Ok(After::KeepAlive)
    })
}

/// Answers 200 with this text.
pub(crate) fn text(body: &str) -> Script {
    status("200 OK", body)
}

/// Answers with this status and text.
pub(crate) fn status(status: &str, body: &str) -> Script {
    let (status, body) = (status.to_owned(), body.to_owned());
    script(move |exchange| {
        exchange.read_body()?;
        exchange.answer(&status, &[("Content-Type", "text/plain")], body.as_bytes())?;
        Ok(After::KeepAlive)
    })
}

/// Answers with these bytes and keeps the connection.
pub(crate) fn raw(bytes: impl AsRef<[u8]>) -> Script {
    let bytes = bytes.as_ref().to_vec();
    script(move |exchange| {
        exchange.read_body()?;
        exchange.write(&bytes)?;
        Ok(After::KeepAlive)
    })
}

/// Answers with these bytes and closes the connection.
pub(crate) fn raw_then_close(bytes: impl AsRef<[u8]>) -> Script {
    let bytes = bytes.as_ref().to_vec();
    script(move |exchange| {
        exchange.read_body()?;
        exchange.write(&bytes)?;
        Ok(After::Close)
    })
}

/// Sends these bytes and resets the connection.
pub(crate) fn raw_then_reset(bytes: impl AsRef<[u8]>) -> Script {
    let bytes = bytes.as_ref().to_vec();
    script(move |exchange| {
        exchange.read_body()?;
        exchange.write(&bytes)?;
        Ok(After::Reset)
    })
}

/// Sends the first bytes, and the others once the gate was opened.
pub(crate) fn two_parts(first: &str, second: &str, gate: &Gate) -> Script {
    let (first, second, gate) = (first.to_owned(), second.to_owned(), gate.clone());
    script(move |exchange| {
        exchange.read_body()?;
        exchange.write(&first)?;
        gate.wait(1);
        exchange.write(&second)?;
        Ok(After::KeepAlive)
    })
}

/// Reads the request and never answers.
pub(crate) fn silent() -> Script {
    script(|exchange| {
        exchange.read_body()?;
        exchange.hold()
    })
}

/// Answers 200 once the gate was opened; `arrived` is opened by each request.
pub(crate) fn gated(arrived: &Gate, gate: &Gate) -> Script {
    let (arrived, gate) = (arrived.clone(), gate.clone());
    script(move |exchange| {
        exchange.read_body()?;
        arrived.open();
        gate.wait(1);
        exchange.answer("200 OK", &[], b"late")?;
        Ok(After::KeepAlive)
    })
}

/// Answers 200 after a while.
pub(crate) fn slow(delay: Duration) -> Script {
    script(move |exchange| {
        exchange.read_body()?;
        std::thread::sleep(delay);
        exchange.answer("200 OK", &[], b"slow")?;
        Ok(After::KeepAlive)
    })
}

/// Answers the first request of a connection and closes on the second one, as a service does whose idle time is over.
pub(crate) fn stale() -> Script {
    script(|exchange| {
        if exchange.seen.nth > 0 {
            return Ok(After::Close);
        }
        exchange.read_body()?;
        exchange.answer("200 OK", &[], b"fresh")?;
        Ok(After::KeepAlive)
    })
}

/// Switches to another protocol and sends everything back.
pub(crate) fn upgrade_echo() -> Script {
    script(|exchange| {
        let protocol = exchange.seen.header("upgrade").unwrap_or("websocket").to_owned();
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello"
        );
        exchange.write(head)?;
        loop {
            let data = exchange.read_raw()?;
            if data.is_empty() {
                return Ok(After::Close);
            }
            exchange.write(data)?;
        }
    })
}

/// A service with a health endpoint whose status the test can change; everything else answers 200.
pub(crate) fn with_health(health: &Arc<AtomicU16>) -> Script {
    let health = health.clone();
    script(move |exchange| {
        exchange.read_body()?;
        let code = if exchange.seen.target == "/health" { health.load(Ordering::SeqCst) } else { 200 };
        let body = json!({"status": if code == 200 { "healthy" } else { "unhealthy" }, "version": "1.2.3"}).to_string();
        exchange.answer(&format!("{code} Whatever"), &[("Content-Type", "application/json")], body.as_bytes())?;
        Ok(After::KeepAlive)
    })
}
