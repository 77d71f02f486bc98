//! OIDs of the built-in types whose values a mask must keep valid.
//!
//! They are fixed in PostgreSQL's catalog and the same on every server; types
//! that users make have OIDs of their own and are [`TypeKind::Other`].
//!
//! Source: PostgreSQL, `pg_type.dat`.

/// What a type's values look like on the wire, as far as masking cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TypeKind {
    /// Any bytes in the session's encoding, the same in both formats.
    Text,
    /// A two's complement number of `size` bytes in binary.
    Integer {
        /// Bytes in binary.
        size: u8,
    },
    /// IEEE 754; 4 or 8 bytes in binary.
    Float,
    /// `numeric`.
    Numeric,
    /// `bool`.
    Bool,
    /// `json`: its text in both formats.
    Json,
    /// `jsonb`: its text, in binary after a version byte of 1.
    Jsonb,
    /// `bytea`.
    Bytea,
    /// `uuid`.
    Uuid,
    /// Dates, times, intervals.
    Temporal,
    /// An array of a built-in type.
    Array,
    /// Anything else.
    Other,
}

macro_rules! types {
    ($($(#[$doc:meta])* $name:ident = $oid:literal, $array:ident = $array_oid:literal;)*) => {
        $(
            $(#[$doc])*
            pub const $name: u32 = $oid;
            #[doc = concat!("Array of [`", stringify!($name), "`].")]
            pub const $array: u32 = $array_oid;
        )*

        /// The type of an array's elements, for arrays of the types named here.
        #[must_use]
        pub fn element(array: u32) -> Option<u32> {
            match array {
                $($array => Some($name),)*
                _ => None,
            }
        }
    };
}

types! {
    /// `bool`.
    BOOL = 16, BOOL_ARRAY = 1000;
    /// `bytea`.
    BYTEA = 17, BYTEA_ARRAY = 1001;
    /// `"char"`, one byte.
    CHAR = 18, CHAR_ARRAY = 1002;
    /// `name`.
    NAME = 19, NAME_ARRAY = 1003;
    /// `int8`.
    INT8 = 20, INT8_ARRAY = 1016;
    /// `int2`.
    INT2 = 21, INT2_ARRAY = 1005;
    /// `int4`.
    INT4 = 23, INT4_ARRAY = 1007;
    /// `text`.
    TEXT = 25, TEXT_ARRAY = 1009;
    /// `oid`.
    OID = 26, OID_ARRAY = 1028;
    /// `json`.
    JSON = 114, JSON_ARRAY = 199;
    /// `xml`.
    XML = 142, XML_ARRAY = 143;
    /// `cidr`.
    CIDR = 650, CIDR_ARRAY = 651;
    /// `float4`.
    FLOAT4 = 700, FLOAT4_ARRAY = 1021;
    /// `float8`.
    FLOAT8 = 701, FLOAT8_ARRAY = 1022;
    /// `money`.
    MONEY = 790, MONEY_ARRAY = 791;
    /// `inet`.
    INET = 869, INET_ARRAY = 1041;
    /// `char(n)`.
    BPCHAR = 1042, BPCHAR_ARRAY = 1014;
    /// `varchar(n)`.
    VARCHAR = 1043, VARCHAR_ARRAY = 1015;
    /// `date`.
    DATE = 1082, DATE_ARRAY = 1182;
    /// `time`.
    TIME = 1083, TIME_ARRAY = 1183;
    /// `timestamp`.
    TIMESTAMP = 1114, TIMESTAMP_ARRAY = 1115;
    /// `timestamptz`.
    TIMESTAMPTZ = 1184, TIMESTAMPTZ_ARRAY = 1185;
    /// `interval`.
    INTERVAL = 1186, INTERVAL_ARRAY = 1187;
    /// `timetz`.
    TIMETZ = 1266, TIMETZ_ARRAY = 1270;
    /// `numeric`.
    NUMERIC = 1700, NUMERIC_ARRAY = 1231;
    /// `uuid`.
    UUID = 2950, UUID_ARRAY = 2951;
    /// `jsonb`.
    JSONB = 3802, JSONB_ARRAY = 3807;
}

/// The type of a literal that nothing gave another type.
pub const UNKNOWN: u32 = 705;

/// What the values of type `oid` look like.
#[must_use]
pub fn kind(oid: u32) -> TypeKind {
    match oid {
        NAME | TEXT | BPCHAR | VARCHAR | XML | UNKNOWN => TypeKind::Text,
        INT2 => TypeKind::Integer { size: 2 },
        INT4 | OID => TypeKind::Integer { size: 4 },
        INT8 => TypeKind::Integer { size: 8 },
        FLOAT4 | FLOAT8 => TypeKind::Float,
        NUMERIC => TypeKind::Numeric,
        BOOL => TypeKind::Bool,
        JSON => TypeKind::Json,
        JSONB => TypeKind::Jsonb,
        BYTEA => TypeKind::Bytea,
        UUID => TypeKind::Uuid,
        DATE | TIME | TIMETZ | TIMESTAMP | TIMESTAMPTZ | INTERVAL => TypeKind::Temporal,
        other if element(other).is_some() => TypeKind::Array,
        // `"char"` holds one byte, `money` is written as the server's locale
        // has it, addresses have a form of their own: none takes a text in place
        // of its value.
        _ => TypeKind::Other,
    }
}
