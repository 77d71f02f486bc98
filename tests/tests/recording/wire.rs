//! Networks that lose and delay.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use anyhow::Result;
use interceptor_tests::eventually;

use super::SOON;
use super::store::Store;

/// A wire to the store that can be interfered with.
pub(crate) struct Wire {
    pub(crate) port: u16,
    pub(crate) state: Arc<WireState>,
}

#[derive(Default)]
pub(crate) struct WireState {
    /// The next answer is not passed on; its connection ends, and no other begins.
    pub(crate) cut: AtomicBool,
    /// That happened.
    pub(crate) is_cut: AtomicBool,
    /// The next request is kept back.
    pub(crate) hold: AtomicBool,
    /// That happened; it goes on when this is unset.
    pub(crate) is_held: AtomicBool,
}

impl Wire {
    pub(crate) fn to(store: &Store) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let wire = Self {
            port: listener.local_addr()?.port(),
            state: Arc::default(),
        };
        let (state, port) = (Arc::clone(&wire.state), store.port);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if state.is_cut.load(SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                for is_request in [true, false] {
                    let (from, to) = if is_request {
                        (client.try_clone(), server.try_clone())
                    } else {
                        (server.try_clone(), client.try_clone())
                    };
                    let (Ok(from), Ok(to)) = (from, to) else {
                        break;
                    };
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || pass(&state, is_request, from, to));
                }
            }
        });
        Ok(wire)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn wait(&self, what: &AtomicBool) -> Result<()> {
        eventually("the wire to be interfered with", SOON, || {
            Ok(what.load(SeqCst))
        })
    }
}

pub(crate) fn pass(state: &WireState, is_request: bool, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 1 << 20];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if is_request && state.hold.swap(false, SeqCst) {
            state.is_held.store(true, SeqCst);
            while state.is_held.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if !is_request && state.cut.swap(false, SeqCst) {
            state.is_cut.store(true, SeqCst);
            break;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
