//! How cases are written down; `tests/corpus/README.md` describes it for those who write them.

/// What happens on a connection, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Bytes, in one write.
    Send(Vec<u8>),
    /// The next bytes come in a write of their own.
    Pause,
    /// Wait for an answer, interim or not.
    AwaitAnswer,
    /// Wait until the instance has given its answer, and closed if that was said.
    AwaitInstance,
    /// Say that nothing more will be sent.
    Finish,
    /// Close with a reset.
    Reset,
}

/// An answer as it is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// It answers a HEAD.
    pub(super) is_head: bool,
    /// The gateway's own word, and words of its explanation.
    pub(super) reason: Option<(String, String)>,
    /// The body, where the case says one.
    pub(super) body: Option<Vec<u8>>,
    /// The body ends before its framing says.
    pub(super) cut: bool,
}

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Open,
    Closed,
}

/// What the instance sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Upstream {
    /// These requests: start line, fields in any order, body.
    Requests(Vec<Vec<u8>>),
    /// These, then at most one, and never to its end.
    Cut(Vec<Vec<u8>>),
}

/// What becomes of the instance's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    Reused,
    Dropped,
}

/// One case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// File and name.
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) steps: Vec<Step>,
    pub(super) answers: Vec<Answer>,
    pub(super) fate: Option<Fate>,
    pub(super) upstream: Option<Upstream>,
    pub(super) pool: Option<Pool>,
    /// What the instance answers: only in the corpus of answers, where [`Self::steps`] is the client's request.
    pub(super) instance: Vec<Step>,
    /// The instance answers before it has read the request's body.
    pub(super) early: bool,
    /// How many of the requests take the full lane.
    pub(super) full: u32,
    /// Not sent byte by byte: too many of them, or the pieces are the case.
    pub(super) whole_only: bool,
}

/// Reads a file of cases.
///
/// # Errors
/// What cannot be understood, with its line.
pub(super) fn read(file: &str, text: &str) -> Result<Vec<Case>, String> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        let complaint = |what: &str| format!("{file}.txt:{number}: {what}: {line}");
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case::new(format!("{file}: {name}"), number));
            continue;
        }
        let case = cases.last_mut().ok_or_else(|| complaint("a line before the first case"))?;
        case.read_line(line).map_err(|what| complaint(&what))?;
    }
    for case in &cases {
        case.check().map_err(|what| format!("{file}.txt:{}: {what}", case.line))?;
    }
    Ok(cases)
}

impl Case {
    fn new(name: String, line: usize) -> Self {
        Self {
            name,
            line,
            steps: Vec::new(),
            answers: Vec::new(),
            fate: None,
            upstream: None,
            pool: None,
            instance: Vec::new(),
            early: false,
            full: 0,
            whole_only: false,
        }
    }

    fn read_line(&mut self, line: &str) -> Result<(), String> {
        if let Some(text) = line.strip_prefix("> ") {
            return send(&mut self.steps, text);
        }
        if let Some(text) = line.strip_prefix("^ ") {
            return send(&mut self.instance, text);
        }
        if let Some(text) = line.strip_prefix("= ") {
            return self.read_upstream(text);
        }
        match line {
            "pause" => self.side().push(Step::Pause),
            "fin" => self.side().push(Step::Finish),
            "reset" if !self.instance.is_empty() => self.instance.push(Step::Reset),
            "await answer" => self.steps.push(Step::AwaitAnswer),
            "await instance" => self.steps.push(Step::AwaitInstance),
            "early" => self.early = true,
            "whole" => self.whole_only = true,
            "< open" => self.fate = Some(Fate::Open),
            "< closed" => self.fate = Some(Fate::Closed),
            "pool: reused" => self.pool = Some(Pool::Reused),
            "pool: dropped" => self.pool = Some(Pool::Dropped),
            _ if line.starts_with("full: ") => {
                self.full = line["full: ".len()..].parse().map_err(|_| "not a number of requests".to_owned())?;
            }
            _ => {
                let text = line.strip_prefix("< ").ok_or("not a line of a case")?;
                self.answers.push(answer(text)?);
            }
        }
        Ok(())
    }

    /// The side that has spoken last.
    fn side(&mut self) -> &mut Vec<Step> {
        if self.instance.is_empty() { &mut self.steps } else { &mut self.instance }
    }

    fn read_upstream(&mut self, text: &str) -> Result<(), String> {
        match (text, &mut self.upstream) {
            ("nothing", seen @ None) => *seen = Some(Upstream::Requests(Vec::new())),
            ("cut", seen @ None) => *seen = Some(Upstream::Cut(Vec::new())),
            ("+ cut", seen @ Some(Upstream::Requests(_))) => {
                let Some(Upstream::Requests(all)) = seen.take() else { return Ok(()) };
                *seen = Some(Upstream::Cut(all));
            }
            (_, seen) => {
                let (is_new, text) = text.strip_prefix("+ ").map_or((false, text), |text| (true, text));
                let bytes = bytes(text)?;
                match seen {
                    None => *seen = Some(Upstream::Requests(vec![bytes])),
                    Some(Upstream::Requests(all)) if is_new => all.push(bytes),
                    Some(Upstream::Requests(all)) => all.last_mut().ok_or("more after nothing")?.extend(bytes),
                    Some(Upstream::Cut(_)) => return Err("more after cut".into()),
                }
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if self.steps.is_empty() {
            return Err("sends nothing".into());
        }
        match (self.instance.is_empty(), self.fate, &self.upstream, self.pool) {
            (true, Some(_), Some(_), None) => Ok(()),
            (true, ..) => Err("says not what becomes of the client's connection and what the instance sees".into()),
            (false, Some(_), _, Some(_)) => Ok(()),
            (false, ..) => Err("says not what becomes of both connections".into()),
        }
    }
}

/// Appends bytes to the write that has begun, or begins one.
fn send(steps: &mut Vec<Step>, text: &str) -> Result<(), String> {
    let bytes = bytes(text)?;
    match steps.last_mut() {
        Some(Step::Send(begun)) => begun.extend(bytes),
        _ => steps.push(Step::Send(bytes)),
    }
    Ok(())
}

/// `STATUS [HEAD] [cut] [body TEXT | REASON[: WORDS]]`
fn answer(text: &str) -> Result<Answer, String> {
    let (status, mut rest) = text.split_once(' ').unwrap_or((text, ""));
    let status = status.parse().map_err(|_| "not a status".to_owned())?;
    let mut flag = |name: &str| {
        let found = rest.strip_prefix(name).filter(|after| after.is_empty() || after.starts_with(' '));
        rest = found.map_or(rest, str::trim_start);
        found.is_some()
    };
    let (is_head, cut) = (flag("HEAD"), flag("cut"));
    let (mut body, mut reason) = (None, None);
    if let Some(text) = rest.strip_prefix("body ") {
        body = Some(bytes(text)?);
    } else if !rest.is_empty() {
        let (word, words) = rest.split_once(": ").unwrap_or((rest, ""));
        reason = Some((word.to_owned(), words.to_owned()));
    }
    Ok(Answer { status, is_head, reason, body, cut })
}

/// Text with `\r`, `\n`, `\t`, `\0`, `\\`, `\xHH` and `\{COUNT*TEXT}` as bytes.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let code = rest[at + 1..].chars().next().ok_or("a backslash at the end")?;
        rest = &rest[at + 1 + code.len_utf8()..];
        match code {
            'r' => out.push(b'\r'),
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            '0' => out.push(0),
            '\\' => out.push(b'\\'),
            'x' => {
                let digits = rest.get(..2).ok_or("\\x without two digits")?;
                out.push(u8::from_str_radix(digits, 16).map_err(|_| "\\x without two digits".to_owned())?);
                rest = &rest[2..];
            }
            '{' => {
                let (inside, after) = rest.split_once('}').ok_or("\\{ without }")?;
                let (count, text) = inside.split_once('*').ok_or("\\{ without *")?;
                let count = count.parse().map_err(|_| "\\{ without a count".to_owned())?;
                out.extend(bytes(text)?.repeat(count));
                rest = after;
            }
            _ => return Err(format!("no such escape: \\{code}")),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

#[test]
fn escapes_are_bytes() {
    assert_eq!(bytes("a\\r\\n\\t\\0\\\\\\xff\\{3*b\\r}c").unwrap(), b"a\r\n\t\0\\\xffb\rb\rb\rc");
    for bad in ["\\", "\\q", "\\x1", "\\{3b}", "\\{3*b"] {
        assert!(bytes(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_case_that_leaves_something_open_is_refused() {
    assert!(read("x", "== a\n> GET\n< 400\n< closed\n").unwrap_err().contains("x.txt:1"));
    assert!(read("x", "> GET\n").unwrap_err().contains("before the first case"));
    assert!(read("x", "== a\n> GET\n< 400\n< closed\n= nothing\n").is_ok());
}
