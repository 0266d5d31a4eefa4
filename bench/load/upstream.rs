//! A server that does as little as HTTP/1.1 allows: what is behind the proxies when they are measured.
//!
//! Prints the port it listens on, then answers until it is ended: 13 bytes, or 64 KiB where the path ends with `/64k`.
//! One thread, keep-alive, one `write` per answer. It understands heads without leniency and bodies with `Content-Length`.

use std::io::{self, Write};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const HEAD_END: &[u8] = b"\r\n\r\n";
/// Also the largest head: as large as a gateway passes on, or attacks with large heads would be this program's failures.
const READ_BYTES: usize = 64 * 1024;

/// Ready-made answers.
struct Answers {
    small: Vec<u8>,
    large: Vec<u8>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(io::stdout(), "{}", listener.local_addr()?.port())?;
    let answers = Arc::new(Answers { small: answer(b"Hello, world\n"), large: answer(&vec![b'x'; 64 * 1024]) });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answers = answers.clone();
        // A connection that breaks is its client's affair.
        tokio::spawn(async move { serve(stream, &answers).await.ok() });
    }
}

fn answer(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

async fn serve(mut stream: TcpStream, answers: &Answers) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    loop {
        let head_len = loop {
            if let Some(at) = buffer[..filled].windows(HEAD_END.len()).position(|window| window == HEAD_END) {
                break at + HEAD_END.len();
            }
            match stream.read(&mut buffer[filled..]).await? {
                0 => return Ok(()),
                read => filled += read,
            }
        };
        let head = &buffer[..head_len];
        let answer = if wants_large(head) { &answers.large } else { &answers.small };
        let request_len = head_len + content_length(head);
        let mut missing = request_len.saturating_sub(filled);
        while missing > 0 {
            let room = missing.min(READ_BYTES - head_len);
            match stream.read(&mut buffer[head_len..head_len + room]).await? {
                0 => return Ok(()),
                read => missing -= read,
            }
        }
        let (rest, end) = (request_len.min(filled), filled);
        buffer.copy_within(rest..end, 0);
        filled = end - rest;
        stream.write_all(answer).await?;
    }
}

fn wants_large(head: &[u8]) -> bool {
    let target = head.split(|byte| *byte == b' ').nth(1);
    target.is_some_and(|target| target.ends_with(b"/64k"))
}

fn content_length(head: &[u8]) -> usize {
    let mut lines = head.split(|byte| *byte == b'\n').skip(1);
    let value = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(15)?;
        name.eq_ignore_ascii_case(b"content-length:").then_some(value)
    });
    value.and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok()).unwrap_or(0)
}
