//! Just enough of HTTP/1.1 heads for the rig's own servers and clients, which know whom they talk to.

/// Where the head ends, its empty line included.
pub(crate) fn end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        from += bytes[from..].iter().position(|byte| *byte == b'\n')? + 1;
        if bytes[from..].starts_with(b"\r\n") {
            return Some(from + 2);
        }
    }
}

/// The trimmed value of the first field of this name, given in lower case and with its colon.
pub(crate) fn field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut lines = head.split(|byte| *byte == b'\n').skip(1);
    lines.find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

/// The length that `Content-Length` tells.
pub(crate) fn content_length(head: &[u8]) -> Option<usize> {
    str::from_utf8(field(head, b"content-length:")?).ok()?.parse().ok()
}
