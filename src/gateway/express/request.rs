//! A request where it was read: its head, and where in it what stands.

use crate::accept::{FieldIndex, Head, Incoming};
use crate::proxy::fields::{Fields, write_line};
use crate::proxy::outgoing::Outgoing;

/// A checked head in the client's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    bytes: &'a [u8],
    head: &'a Head,
    fields: FieldsAt<'a>,
}

/// The fields of a head, where they stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldsAt<'a> {
    bytes: &'a [u8],
    index: &'a FieldIndex,
}

impl<'a> Request<'a> {
    /// The request at the front of `bytes`.
    pub(super) const fn new(bytes: &'a [u8], incoming: &Incoming<'a>) -> Self {
        let fields = FieldsAt { bytes, index: incoming.fields };
        Self { bytes, head: incoming.head, fields }
    }

    pub(super) fn method(&self) -> &'a [u8] {
        self.head.method(self.bytes)
    }

    pub(super) fn target(&self) -> &'a [u8] {
        self.bytes.get(self.head.target.clone()).unwrap_or_default()
    }

    pub(super) const fn fields(&self) -> &FieldsAt<'a> {
        &self.fields
    }

    /// Writes it as `outgoing` says it goes to the instance.
    pub(super) fn write(&self, outgoing: &Outgoing<'_, FieldsAt<'_>>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method());
        out.push(b' ');
        outgoing.write_target(self.target(), out);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        for (name, value) in self.fields.each() {
            // `Connection` is about ours with the client, and says nothing but how long that lasts.
            if !outgoing.replaces(name) && !name.eq_ignore_ascii_case(b"connection") {
                write_line(out, name, |out| out.extend_from_slice(value));
            }
        }
        outgoing.write(out);
        out.extend_from_slice(b"\r\n");
    }
}

impl Fields for FieldsAt<'_> {
    fn each(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.index.fields(self.bytes)
    }
}
