//! The SQLSTATE codes that are sent or looked for.
//!
//! Format: PostgreSQL manual, page `errcodes-appendix`.

/// `warning`.
pub const WARNING: &str = "01000";
/// `feature_not_supported`.
pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// `protocol_violation`.
pub const PROTOCOL_VIOLATION: &str = "08P01";
/// `connection_failure`.
pub const CONNECTION_FAILURE: &str = "08006";
/// `sqlclient_unable_to_establish_sqlconnection`.
pub const CANNOT_CONNECT: &str = "08001";
/// `sqlserver_rejected_establishment_of_sqlconnection`.
pub const CONNECTION_REJECTED: &str = "08004";
/// `invalid_authorization_specification`.
pub const INVALID_AUTHORIZATION: &str = "28000";
/// `invalid_password`.
pub const INVALID_PASSWORD: &str = "28P01";
/// `in_failed_sql_transaction`.
pub const IN_FAILED_TRANSACTION: &str = "25P02";
/// `insufficient_privilege`: what a refused statement gets.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// `syntax_error`.
pub const SYNTAX_ERROR: &str = "42601";
/// `program_limit_exceeded`.
pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
/// `too_many_connections`.
pub const TOO_MANY_CONNECTIONS: &str = "53300";
/// `query_canceled`.
pub const QUERY_CANCELED: &str = "57014";
/// `admin_shutdown`.
pub const ADMIN_SHUTDOWN: &str = "57P01";
/// `cannot_connect_now`.
pub const CANNOT_CONNECT_NOW: &str = "57P03";
/// `internal_error`.
pub const INTERNAL_ERROR: &str = "XX000";
