//! The shell around the engine: kernel, sockets, stores and commands.
//!
//! Data flows one way through these rooms: [`kernel`] redirects and names the
//! process, [`flow`] accepts and moves bytes, [`agents`] knows who it is, [`net`],
//! [`tls`], [`pg`], [`http`] and [`ssh`] open both legs, the engine decides, [`recorder`]
//! keeps, [`archive`] keeps for longer, and [`export`] tells others.

pub mod admin;
pub mod agents;
pub mod approval;
pub mod archive;
mod beside;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dns;
pub mod export;
mod fence;
pub mod flow;
pub mod handover;
mod host;
pub mod http;
pub mod index;
pub mod keeper;
pub mod kernel;
mod lease;
pub mod looker;
pub mod net;
pub mod pg;
pub mod recorder;
pub mod sandbox;
pub mod secrets;
pub mod service;
pub mod ssh;
pub mod telemetry;
pub mod tls;
mod wire;
