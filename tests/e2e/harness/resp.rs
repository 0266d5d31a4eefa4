//! The little of Redis' protocol that a test needs to look at keys, and to write some that the gateway did not.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{PATIENCE, net};

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Nil,
    Number(i64),
    /// A status or a string; what is no UTF-8 is replaced.
    Text(String),
    /// An error with the word in front, as in `OOM command not allowed …`.
    Error(String),
    List(Vec<Reply>),
}

impl Reply {
    /// The string; fails the test when it is anything else.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            other => panic!("not a string: {other:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn number(&self) -> i64 {
        match self {
            Self::Number(number) => *number,
            other => panic!("not a number: {other:?}"),
        }
    }

    /// The strings of a list.
    #[track_caller]
    pub(crate) fn texts(&self) -> Vec<&str> {
        match self {
            Self::List(list) => list.iter().map(Self::text).collect(),
            other => panic!("not a list: {other:?}"),
        }
    }

    /// The first member of a list, whatever the others are.
    pub(crate) fn first(&self) -> Option<&Reply> {
        match self {
            Self::List(list) => list.first(),
            _ => None,
        }
    }

    /// The field of a hash, as `HGETALL` gives it.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        self.texts().chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].to_owned())
    }
}

/// Sends one command on a connection of its own, logged in when there is a password.
pub(crate) fn ask(server: SocketAddr, password: Option<&str>, command: &[&[u8]]) -> io::Result<Reply> {
    let stream = net::connect(None, server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut stream = BufReader::new(stream);
    if let Some(password) = password {
        let answer = exchange(&mut stream, &[b"AUTH", password.as_bytes()])?;
        assert_eq!(answer, Reply::Text("OK".to_owned()), "the test's own password");
    }
    exchange(&mut stream, command)
}

fn exchange(stream: &mut BufReader<TcpStream>, command: &[&[u8]]) -> io::Result<Reply> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend(b"\r\n");
    }
    stream.get_mut().write_all(&bytes)?;
    read(stream)
}

fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let (kind, rest) = line.trim_end().split_at_checked(1).ok_or(io::ErrorKind::UnexpectedEof)?;
    let number = || rest.parse::<i64>().map_err(io::Error::other);
    Ok(match kind {
        "+" => Reply::Text(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Number(number()?),
        "$" | "*" if number()? < 0 => Reply::Nil,
        "$" => Reply::Text(bulk(stream, number()?)?),
        "*" => Reply::List((0..number()?).map(|_| read(stream)).collect::<io::Result<_>>()?),
        _ => return Err(io::Error::other(format!("not Redis: {line:?}"))),
    })
}

fn bulk(stream: &mut BufReader<TcpStream>, length: i64) -> io::Result<String> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)? + 2];
    stream.read_exact(&mut bytes)?;
    bytes.truncate(bytes.len() - 2);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
