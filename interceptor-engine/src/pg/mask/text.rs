//! Hiding what detectors find in running text: errors, notices, `COPY` rows.

use interceptor_policy::mask::Masked;
use interceptor_policy::{MaskKey, Masks};

/// `text` with everything that the detectors find hidden; `None` where they
/// find nothing.
#[must_use]
pub fn mask_text(masks: &Masks, text: &[u8], key: &MaskKey) -> Option<Vec<u8>> {
    let plan = masks.detect()?;
    if !plan.may_hit(text) {
        return None;
    }
    let hits = plan.scan(text);
    if hits.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut done = 0;
    for hit in hits {
        out.extend_from_slice(text.get(done..hit.range.start)?);
        let found = text.get(hit.range.clone())?;
        if hit.transform.apply(found, key, &mut out) == Masked::Null {
            out.extend_from_slice(b"[null]");
        }
        done = hit.range.end;
    }
    out.extend_from_slice(text.get(done..)?);
    Some(out)
}
