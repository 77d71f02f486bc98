//! What must hold for what is compressed in a recording, and for what is sealed beside it.
//!
//! Whoever can write to the store can put any bytes there.

use std::io::Read as _;

use crate::event::Sealed;
use crate::packed::{LONGEST, Packer, length, unpack};
use crate::sealed::Opened;

/// Unpacks bytes, and packs them.
///
/// What is unpacked is as long as its head says, and what another reader makes of it; what
/// is packed comes back, and nothing that was cut off or put behind it does.
pub fn packed_data(input: &[u8]) {
    let said = length(input);
    assert!(said.is_none_or(|said| said <= LONGEST));
    if let Some(data) = unpack(input) {
        assert_eq!(Some(data.len()), said);
        let mut other = Vec::new();
        let reader = zstd::stream::read::Decoder::new(input);
        let read = reader.and_then(|mut reader| {
            // As far back as a frame may point.
            reader.window_log_max(31)?;
            let limit = LONGEST as u64 + 1;
            reader.take(limit).read_to_end(&mut other)
        });
        assert!(
            read.is_ok() && other == data,
            "another reader has it otherwise"
        );
    }
    let data = input.repeat(1 + 600 / input.len().max(1));
    let Ok(mut packer) = Packer::new() else {
        return;
    };
    let Some(packed) = packer.pack(&data) else {
        return;
    };
    assert!(packed.len() <= data.len() - data.len() / 8);
    assert_eq!(unpack(packed).as_ref(), Some(&data));
    assert_eq!(unpack(&[packed, &[0]].concat()), None);
    assert_eq!(packed.split_last().and_then(|(_, cut)| unpack(cut)), None);
}

/// Reads what is said to be sealed, and writes it.
///
/// What is read is no longer than what may be unpacked; what is written is read back, and
/// nothing in it is taken for something else.
pub fn sealed_original(input: &[u8]) {
    if let Ok(opened) = Opened::read(input) {
        let data = opened.data.map_or(0, |data| data.len());
        assert!(data <= LONGEST.max(input.len()));
    }
    let (head, data) = input.split_at(input.len() / 2);
    let line = String::from_utf8_lossy(head).into_owned();
    let meta = serde_json::json!({ "text": line, "data": true, "line": [line] });
    for sealed in [
        Sealed::data(data.to_vec()),
        Sealed::Nothing.with_head(Some(line.clone()), Some(meta.to_string())),
        Sealed::data(data.to_vec()).with_head(Some(line.clone()), Some(meta.to_string())),
    ] {
        let mut sealed = sealed;
        let mut written = Vec::new();
        let before = sealed.clone();
        sealed.seal(|plain| {
            written = plain.to_vec();
            None
        });
        let opened = Opened::read(&written);
        assert!(opened.is_ok(), "what was written is not read");
        let Ok(opened) = opened else {
            return;
        };
        let mut again = match opened.data {
            Some(data) => Sealed::data(data),
            None => Sealed::Nothing,
        };
        if let Some(line) = opened.line {
            let meta = serde_json::Value::Object(opened.meta);
            assert_eq!(
                meta.get("text").and_then(|text| text.as_str()),
                Some(&*line)
            );
            again = again.with_head(Some(line), Some(meta.to_string()));
        }
        assert_eq!(again, before);
    }
}
