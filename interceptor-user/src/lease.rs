//! Work that one of all interceptors does that record under one prefix: whoever has the
//! lease. Should two believe that they have it, for a clock stood still, each step of either
//! has to be one that may be done twice.

use std::time::Duration;

use redis::{Value, cmd};

use crate::recorder::read::{ReadError, Reader};

/// How long one holds; it is taken again before each step.
const LEASE: Duration = Duration::from_secs(120);

/// Whether this process, on `host`, is the one that does `work`; holds the lease for a while
/// longer.
///
/// # Errors
/// When Redis does not answer as it should.
pub(crate) fn hold(reader: &mut Reader, work: &str, host: &str) -> Result<bool, ReadError> {
    let key = reader.key(work);
    let mine = format!("{host} {}", std::process::id());
    let ms = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
    let mut take = cmd("SET");
    take.arg(&key).arg(&mine).arg("NX").arg("PX").arg(ms);
    if reader.run(&take)? == Value::Okay {
        return Ok(true);
    }
    let holder = reader.run(cmd("GET").arg(&key))?;
    if holder != Value::BulkString(mine.into_bytes()) {
        return Ok(false);
    }
    reader.run(cmd("PEXPIRE").arg(&key).arg(ms))?;
    Ok(true)
}
