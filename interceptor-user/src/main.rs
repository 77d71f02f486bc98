//! The program `interceptor`.

/// An exchange is a few dozen short-lived allocations, and the recorder frees on its
/// thread what flows allocated on theirs: what glibc's allocator is slowest at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    interceptor_user::cli::main()
}
