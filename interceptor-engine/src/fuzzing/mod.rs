//! What must hold for any bytes: the bodies of this crate's fuzz targets, and of the
//! tests that run their corpus. See the crate `interceptor-proto` for more of them.

mod coding;
mod packed;
mod replay;
mod ssh;

pub use coding::content_coding;
pub use packed::{packed_data, sealed_original};
pub use replay::replay_terminal;
pub use ssh::{ssh_command, ssh_terminal};

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a target's assertions over its corpus; an empty one proves nothing.
    fn run(target: &str, check: fn(&[u8])) {
        let folder = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert!(!files.is_empty(), "no corpus in {folder}");
        for file in files {
            check(&std::fs::read(file).unwrap());
        }
    }

    #[test]
    fn the_corpus_of_content_codings_holds() {
        run("content_coding", content_coding);
    }

    #[test]
    fn the_corpus_of_packed_data_holds() {
        run("packed_data", packed_data);
    }

    #[test]
    fn the_corpus_of_sealed_originals_holds() {
        run("sealed_original", sealed_original);
    }

    #[test]
    fn the_corpus_of_command_lines_holds() {
        run("ssh_command", ssh_command);
    }

    #[test]
    fn the_corpus_of_terminals_holds() {
        run("ssh_terminal", ssh_terminal);
    }

    #[test]
    fn the_corpus_of_replayed_terminals_holds() {
        run("replay_terminal", replay_terminal);
    }
}
