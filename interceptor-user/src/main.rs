//! The program `interceptor`.

fn main() -> std::process::ExitCode {
    interceptor_user::cli::main()
}
