//! An SSH connection from its opening to its end: what is asked for on each of its
//! channels, what comes of it, and what goes on record.
//!
//! * [`session`] is one connection: what its channels share, and the door to each;
//! * [`asking`] judges a request, refuses it, or keeps it until a person has decided;
//! * [`channel`] is one channel: its requests and its bytes, masked on the way back;
//! * [`command`] reads a command line as the programs that it runs;
//! * [`terminal`] tells the lines that are entered in an interactive shell;
//! * [`sftp`] reads the file transfer protocol on a channel, operation by operation;
//! * [`shell`] judges an interactive shell line by line, as the [`terminal`] shows it;
//! * [`record`] puts all of it on record;
//! * [`outbox`] is what the shell is told to do.
//!
//! The transport (keys, encryption, windows) is the shell's and a library's
//! business: a channel is fed requests and bytes in the order in which they were
//! sent, and says what goes on to the other side. No I/O, and no clock.
//!
//! Spec: RFC 4254; draft-ietf-secsh-filexfer-02.

pub mod asking;
pub mod channel;
pub mod command;
pub mod outbox;
mod record;
pub mod session;
mod sftp;
mod shell;
pub mod terminal;

pub use channel::{Exit, Request, Size};
pub use outbox::{Act, Outbox};
pub use session::{Settings, SshSession};
