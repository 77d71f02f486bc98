//! Hiding what detectors find in running text: errors, notices, `COPY` rows.

use interceptor_policy::{MaskKey, Masks};

/// `text` with everything that the detectors find hidden; `None` where they
/// find nothing.
#[must_use]
pub fn mask_text(masks: &Masks, text: &[u8], key: &MaskKey) -> Option<Vec<u8>> {
    masks.detect()?.hide(text, key).map(|(hidden, _)| hidden)
}
