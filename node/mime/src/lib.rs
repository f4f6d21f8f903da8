//! The streaming MIME scanner: part tree, envelope and preview of a message, with limits.
//!
//! A message is fed to a [`Scanner`] in pieces of any size, as it is stored; what comes out is a [`Structure`]: where each
//! part lies, what its header says, and what IMAP's ENVELOPE, BODYSTRUCTURE and SEARCH ask. It is a cache: the stored
//! octets are never changed, and a structure that is lost or too large is made anew from them.
//!
//! Every input is accepted. Whatever passes a limit of `core_types::limits` becomes one opaque leaf or is left out;
//! time is linear in the message, memory does not depend on its bodies, and nothing recurses.
//!
//! Not here: IO, what a client is told, unpacking of archives (never done), decoding of whole large bodies.

mod address_list;
mod content;
mod date;
mod decode;
pub mod fuzzing;
mod header;
mod lexer;
mod preview;
mod scan;
mod section;
mod structure;

pub use date::{format_date, parse_date};
pub use decode::{Transfer, decode_body, decode_charset, decode_header_text, decode_transfer};
pub use header::{Field, Fields, fields, header_fields, unfold};
pub use scan::Scanner;
pub use section::PartRef;
pub use structure::{
    Address, ContentType, Disposition, Encoding, Envelope, Kind, Parameter, Part, STRUCTURE_VERSION, Structure,
};
