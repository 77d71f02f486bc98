//! The terminal of whoever looks at a recorded one.

use std::io::{self, IsTerminal as _};
use std::sync::{Mutex, Once, PoisonError};

use interceptor_engine::replay::ssh::filter;
use interceptor_engine::replay::ssh::terminals::Size;
use nix::sys::termios::{LocalFlags, OutputFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

/// As the terminal was, while it is drawn on.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Drawn on as the program that was recorded drew: line feeds are no new lines, and
/// keys are not shown. It is as before when this is dropped, and when a signal ends
/// the program meanwhile.
#[derive(Debug)]
pub(super) struct Screen(());

impl Screen {
    pub(super) fn enter() -> Option<Self> {
        let before = tcgetattr(io::stdout()).ok()?;
        let mut drawn = before.clone();
        drawn.output_flags.remove(OutputFlags::OPOST);
        drawn
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ICANON);
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        static WATCHED: Once = Once::new();
        WATCHED.call_once(|| {
            std::thread::spawn(|| {
                // Without it, a signal ends the program as it does any.
                let Ok(status) = until_ended() else { return };
                if restore() {
                    // Not by `Stdout`, which the other thread has locked.
                    let _ = nix::unistd::write(io::stdout(), filter::reset().as_bytes());
                }
                std::process::exit(status);
            });
        });
        tcsetattr(io::stdout(), SetArg::TCSADRAIN, &drawn).ok()?;
        Some(Self(()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Whether it was drawn on.
fn restore() -> bool {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(before) = before else { return false };
    // What was typed meanwhile, by whomever, is for nobody.
    let _ = tcsetattr(io::stdout(), SetArg::TCSAFLUSH, &before);
    true
}

/// Waits for a signal that ends the program; the status to end with.
fn until_ended() -> io::Result<i32> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let kind = tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
            _ = hangup.recv() => SignalKind::hangup(),
        };
        Ok(128 + kind.as_raw_value())
    })
}

/// The line before the terminal is drawn.
pub(super) fn told(recorded: Size) -> String {
    let (columns, rows) = size();
    let fits = |recorded: u64, own: usize| usize::try_from(recorded).is_ok_and(|r| r <= own);
    match fits(recorded.columns, columns) && fits(recorded.rows, rows) {
        true => format!("terminal of {recorded}"),
        false => format!(
            "terminal of {recorded}; this one is {columns} by {rows}, which is too small for the whole picture"
        ),
    }
}

/// Columns and rows of the terminal that standard output is.
pub(super) fn size() -> (usize, usize) {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    if !io::stdout().is_terminal() {
        return (80, 24);
    }
    // SAFETY: the call fills the struct that it is given, which outlives it.
    let done = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    match (size.ws_col, size.ws_row) {
        (columns, rows) if done == 0 && columns > 0 && rows > 0 => {
            (usize::from(columns), usize::from(rows))
        }
        (columns, _) if done == 0 && columns > 0 => (usize::from(columns), 24),
        _ => (80, 24),
    }
}
