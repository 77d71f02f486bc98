//! The program `interceptor`.

fn main() {}
