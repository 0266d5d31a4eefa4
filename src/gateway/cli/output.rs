//! The one way out: answers to standard output, everything else to standard error.

use super::access::Environment;
use super::colour::{self, When};
use super::failure::Failure;
use super::table::Table;
use super::text::clean;
use std::io::{self, BufWriter, IsTerminal, Write};

/// Both ways, and what the first one leads to.
pub(super) struct Output {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// Whether to use colour.
    pub(super) is_coloured: bool,
    /// Columns of the terminal; `None` when there is none.
    pub(super) columns: Option<usize>,
}

impl Output {
    /// Standard output and standard error of this process.
    pub(super) fn standard(when: When, env: &Environment) -> Self {
        let out = io::stdout().lock();
        let is_terminal = out.is_terminal();
        Self {
            is_coloured: colour::is_wanted(when, env, is_terminal),
            columns: if is_terminal { columns(&out) } else { None },
            out: Box::new(BufWriter::new(out)),
            err: Box::new(io::stderr()),
        }
    }

    /// Writes text as it is. It must be clean.
    ///
    /// # Errors
    /// Nobody reads, or the device is full.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.out.write_all(bytes)?)
    }

    /// Writes one line. It must be clean.
    ///
    /// # Errors
    /// Nobody reads, or the device is full.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.raw(line.as_bytes())?;
        self.raw(b"\n")
    }

    /// Writes a table.
    ///
    /// # Errors
    /// Nobody reads, or the device is full.
    pub(super) fn table(&mut self, table: &Table<'_>) -> Result<(), Failure> {
        let (columns, is_coloured) = (self.columns, self.is_coloured);
        table.lines(columns, is_coloured).try_for_each(|line| self.line(&line))
    }

    /// Hands over what was written so far.
    ///
    /// # Errors
    /// Nobody reads, or the device is full.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }

    /// Tells people something that is no part of the answer.
    pub(super) fn note(&mut self, text: &str) {
        // Whoever closed standard error does not want to know.
        let _ = writeln!(self.err, "{}", clean(text));
    }
}

fn columns(terminal: &impl std::os::fd::AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    // A serial line says 0.
    Some(usize::from(size.ws_col)).filter(|&columns| columns > 0)
}
