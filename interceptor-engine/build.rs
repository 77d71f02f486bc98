//! Compiles the call into PostgreSQL's parser.

fn main() {
    println!("cargo:rerun-if-changed=native/parse.c");
    cc::Build::new()
        .file("native/parse.c")
        .warnings(true)
        .compile("interceptor_pg_parse");
}
