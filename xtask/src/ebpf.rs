//! `cargo xtask ebpf`: builds the kernel programs.

/// Rebuilds the eBPF object from source.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Build nothing; fail when the committed object does not match its source
    #[arg(long)]
    pub check: bool,
    /// Install what is missing first (Debian packages, bpf-linker)
    #[arg(long)]
    pub install: bool,
}

/// Runs the command.
///
/// # Errors
/// When a tool is missing, the build fails, or the object differs.
pub fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
