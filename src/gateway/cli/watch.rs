//! `watch`: changes as they happen.
//!
//! One thread follows the registry ([`super::stream`]), one waits for the reader of our output to go, and the command's own
//! prints.

use super::changes::{Board, Change, Difference, What};
use super::colour::{Tone, paint};
use super::failure::Failure;
use super::json;
use super::output::Output;
use super::reader;
use super::stream::{Listed, Notice, Scope, follow};
use super::text::clean;
use crate::clock;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, UNIX_EPOCH};
use vertice_client::RegistryClient;

/// Prints changes of one service, or of all, until something ends it.
pub(super) fn watch(client: RegistryClient, service: Option<&str>, is_json: bool, output: &mut Output) -> Result<(), Failure> {
    let scope = Scope { client, service: service.map(str::to_owned) };
    let list = scope.list()?;
    let mut printer = Printer { board: Board::default(), is_json };
    list.services.into_iter().for_each(|listed| drop(printer.board.apply(listed.change)));
    let what = service.map_or_else(|| format!("{} services", printer.board.len()), str::to_owned);
    // The threads wait while this is full: no notice is dropped, and nothing piles up.
    let (notices, received) = sync_channel(16);
    let closed = notices.clone();
    start("reader", move || {
        if reader::wait_until_gone() {
            // Nobody listens only when the command has ended already.
            let _ = closed.send(Notice::ReaderGone);
        }
    })?;
    start("stream", move || follow(&scope, list.index, &notices))?;
    let mut link = Link::New;
    for notice in received {
        match notice {
            Notice::Change(text) => printer.change(&text, output)?,
            Notice::List(list) => printer.list(list, output)?,
            Notice::Connected(url) => link.is_up(&format!("{what} at {url}"), output),
            Notice::Lost(cause) => link.is_down(&cause, output),
            Notice::End(failure) => return Err(failure),
            Notice::ReaderGone => return Err(Failure::Closed),
        }
        output.flush()?;
    }
    Ok(())
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|error| Failure::Call { doing: "start a thread".to_owned(), cause: error.to_string() })
}

/// What was last said of the connection: each state is told once.
enum Link {
    New,
    Up,
    Down,
}

impl Link {
    fn is_up(&mut self, what: &str, output: &mut Output) {
        match self {
            Self::New => output.note(&format!("watching {what}")),
            Self::Up => {}
            Self::Down => output.note(&format!("watching again: {what}")),
        }
        *self = Self::Up;
    }

    fn is_down(&mut self, cause: &str, output: &mut Output) {
        if !matches!(self, Self::Down) {
            output.note(&format!("failed to watch: {cause}; trying again"));
        }
        *self = Self::Down;
    }
}

struct Printer {
    board: Board,
    is_json: bool,
}

impl Printer {
    /// What a stream calls a change is one, even when nothing of it can be seen.
    fn change(&mut self, text: &str, output: &mut Output) -> Result<(), Failure> {
        let change = match Change::read(text) {
            Ok(change) => change,
            Err(error) => {
                output.note(&format!("failed to read a change: {error}"));
                return Ok(());
            }
        };
        let service = change.service().to_owned();
        let nothing_seen = if matches!(change, Change::Gone(_)) { What::Removed } else { What::Unlisted };
        let mut differences = self.board.apply(change);
        if differences.is_empty() {
            differences.push(Difference { instance: String::new(), what: nothing_seen });
        }
        self.print(&service, &differences, text, output)
    }

    /// The whole state, of which it is unknown what is new.
    fn list(&mut self, list: Vec<Listed>, output: &mut Output) -> Result<(), Failure> {
        for service in self.board.missing(list.iter().map(|listed| listed.change.service())) {
            // As a stream would say it.
            let text = format!("{{\"service_name\":{},\"deleted\":true}}", serde_json::Value::from(service));
            self.change(&text, output)?;
        }
        for Listed { text, change } in list {
            let service = change.service().to_owned();
            let differences = self.board.apply(change);
            if !differences.is_empty() {
                self.print(&service, &differences, &text, output)?;
            }
        }
        Ok(())
    }

    fn print(&self, service: &str, differences: &[Difference], text: &str, output: &mut Output) -> Result<(), Failure> {
        if self.is_json {
            return output.line(&json::line(text));
        }
        let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(clock::wall_ms())).to_string();
        differences.iter().try_for_each(|difference| output.line(&line(&time, service, difference, output.is_coloured)))
    }
}

fn line(time: &str, service: &str, difference: &Difference, is_coloured: bool) -> String {
    let mut line = format!("{time}  ");
    paint(&mut line, &clean(service), Tone::Heading, is_coloured);
    if !difference.instance.is_empty() {
        line.push_str("  ");
        line.push_str(&clean(&difference.instance));
    }
    line.push_str("  ");
    paint(&mut line, &clean(&difference.what.to_string()), difference.what.tone(), is_coloured);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let difference = |instance: &str, what| Difference { instance: instance.to_owned(), what };
        let status = What::Fact("status", "healthy".to_owned(), "\x1bdown".to_owned());
        assert_eq!(line("T", "x", &difference("a:1", status), false), "T  x  a:1  status healthy -> \\u{1b}down");
        assert_eq!(line("T", "x", &difference("", What::Removed), true), "T  \x1b[1mx\x1b[0m  \x1b[31mremoved\x1b[0m");
    }
}
