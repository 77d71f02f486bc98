//! Names of tables, looked up on a connection of the proxy's own.

/// One.
#[derive(Debug)]
pub struct Catalog;
/// All.
#[derive(Debug)]
pub struct Catalogs;
