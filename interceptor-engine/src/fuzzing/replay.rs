//! What must hold for a terminal that is shown again.

use crate::replay::ssh::filter::Filter;

/// Filters a terminal's output.
///
/// However it is cut, the same comes out; what went through goes through again; and by
/// a rule that knows less than the filter, nothing that is answered is left.
pub fn replay_terminal(input: &[u8]) {
    let whole = Filter::default().push(input);
    for size in [1, 3] {
        let mut filter = Filter::default();
        let cut: String = input.chunks(size).map(|part| filter.push(part)).collect();
        assert_eq!(cut, whole);
    }
    assert_eq!(Filter::default().push(whole.as_bytes()), whole);
    assert!(!whole.contains(['\u{0}', '\u{5}', '\u{7f}', '\u{18}', '\u{1a}']));
    assert!(!whole.contains(|char| ('\u{80}'..='\u{9f}').contains(&char)));
    let mut rest = whole.as_str();
    while let Some((_, behind)) = rest.split_once('\u{1b}') {
        let first = behind.chars().next();
        assert!(!matches!(
            first,
            None | Some(']' | 'P' | 'X' | '^' | '_' | 'Z' | 'c')
        ));
        if let Some(control) = behind.strip_prefix('[') {
            let last = control.chars().find(|char| ('@'..='~').contains(char));
            let answered = ['c', 'n', 't', 'x', 'i', 'R', 'w', 'v', 'y', 'z'];
            assert!(last.is_some_and(|last| !answered.contains(&last)));
            assert!(!control.starts_with(['>', '=', '<']));
        }
        rest = behind;
    }
}
