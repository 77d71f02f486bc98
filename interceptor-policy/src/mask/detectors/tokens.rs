//! Keys and tokens that are told by how they begin.
//!
//! The table is all there is to most kinds: to know another token, add its line.

use std::ops::Range;

use super::Detector::{
    self, AnthropicKey, AwsKey, AzureKey, GcpKey, GithubToken, GitlabToken, OpenaiKey, SlackToken,
    StripeKey,
};
use super::bytes::{Class, at, before, begins, run, run_back, short_run};

/// One form of a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    /// Whose it is.
    pub(super) detector: Detector,
    /// How it begins, at least four bytes. Where the last is `=`, it is a name
    /// beside the token, and shown.
    pub(super) prefix: &'static str,
    /// What comes behind.
    body: Class,
    /// Fewest letters behind the prefix.
    min: usize,
    /// Most, where more make it something else.
    max: usize,
}

const ANY: usize = usize::MAX;
/// Letters of a token among which there is a digit.
const HEAD: usize = 64;

const fn token(
    detector: Detector,
    prefix: &'static str,
    body: Class,
    min: usize,
    max: usize,
) -> Token {
    Token {
        detector,
        prefix,
        body,
        min,
        max,
    }
}

/// Every form; no prefix is the beginning of another.
#[rustfmt::skip]
pub(super) const TOKENS: &[Token] = &[
    token(AwsKey,       "AKIA",                      Class::Upper,  16, 16),
    token(AwsKey,       "ASIA",                      Class::Upper,  16, 16), // for a session
    token(AwsKey,       "ABIA",                      Class::Upper,  16, 16), // bearer
    token(AwsKey,       "ACCA",                      Class::Upper,  16, 16), // context
    token(GcpKey,       "AIza",                      Class::Word,   35, 35),
    token(GcpKey,       "GOCSPX-",                   Class::Word,   28, 28), // OAuth client
    token(GcpKey,       "ya29.",                     Class::Dotted, 30, ANY), // OAuth access
    token(AzureKey,     "AccountKey=",               Class::Base64, 86, 88), // storage, Cosmos
    token(AzureKey,     "SharedAccessKey=",          Class::Base64, 43, 44), // Service Bus, IoT
    token(GithubToken,  "ghp_",                      Class::Alnum,  36, ANY),
    token(GithubToken,  "gho_",                      Class::Alnum,  36, ANY),
    token(GithubToken,  "ghu_",                      Class::Alnum,  36, ANY),
    token(GithubToken,  "ghs_",                      Class::Alnum,  36, ANY),
    token(GithubToken,  "ghr_",                      Class::Alnum,  36, ANY),
    token(GithubToken,  "github_pat_",               Class::Word,   60, ANY),
    token(GitlabToken,  "glpat-",                    Class::Dotted, 20, ANY),
    token(GitlabToken,  "gldt-",                     Class::Dotted, 20, ANY),
    token(GitlabToken,  "glrt-",                     Class::Dotted, 20, ANY),
    token(GitlabToken,  "glcbt-",                    Class::Dotted, 20, ANY),
    token(GitlabToken,  "glptt-",                    Class::Dotted, 20, ANY),
    token(GitlabToken,  "glft-",                     Class::Dotted, 20, ANY),
    token(GitlabToken,  "glimt-",                    Class::Dotted, 20, ANY),
    token(GitlabToken,  "glagent-",                  Class::Dotted, 20, ANY),
    token(GitlabToken,  "gloas-",                    Class::Dotted, 20, ANY),
    token(GitlabToken,  "glsoat-",                   Class::Dotted, 20, ANY),
    token(GitlabToken,  "GR1348941",                 Class::Word,   20, ANY), // runners, before 2023
    token(SlackToken,   "xoxb-",                     Class::Word,   24, ANY),
    token(SlackToken,   "xoxp-",                     Class::Word,   24, ANY),
    token(SlackToken,   "xoxa-",                     Class::Word,   24, ANY),
    token(SlackToken,   "xoxr-",                     Class::Word,   24, ANY),
    token(SlackToken,   "xoxs-",                     Class::Word,   24, ANY),
    token(SlackToken,   "xoxc-",                     Class::Word,   24, ANY),
    token(SlackToken,   "xoxe",                      Class::Dotted, 25, ANY), // `xoxe-`, `xoxe.xoxp-`
    token(SlackToken,   "xapp-",                     Class::Word,   24, ANY),
    token(SlackToken,   "hooks.slack.com/services/", Class::Path,   30, ANY),
    token(StripeKey,    "sk_live_",                  Class::Alnum,  16, ANY),
    token(StripeKey,    "sk_test_",                  Class::Alnum,  16, ANY),
    token(StripeKey,    "rk_live_",                  Class::Alnum,  16, ANY),
    token(StripeKey,    "rk_test_",                  Class::Alnum,  16, ANY),
    token(StripeKey,    "whsec_",                    Class::Base64, 24, ANY),
    token(OpenaiKey,    "sk-proj-",                  Class::Word,   40, ANY),
    token(OpenaiKey,    "sk-svcacct-",               Class::Word,   40, ANY),
    token(OpenaiKey,    "sk-admin-",                 Class::Word,   40, ANY),
    token(AnthropicKey, "sk-ant-",                   Class::Word,   32, ANY),
];

impl Token {
    /// The token whose prefix starts at `start`.
    pub(super) fn find(&self, value: &[u8], start: usize) -> Option<Range<usize>> {
        if !begins(value, start) {
            return None;
        }
        let body = start + self.prefix.len();
        let is = |byte| self.body.has(byte);
        let head = short_run(value, body, HEAD, is);
        // What is drawn at random has digits; `xoxb-your-token-goes-right-here` has none.
        if !value.get(body..head)?.iter().any(u8::is_ascii_digit) {
            return None;
        }
        let most = self.max.saturating_add(1).saturating_sub(head - body);
        let mut end = short_run(value, head, most, is);
        // The end of a sentence.
        while end > body && self.body == Class::Dotted && at(value, end - 1) == b'.' {
            end -= 1;
        }
        let fits = (self.min..=self.max).contains(&(end - body));
        let shown = self.prefix.ends_with('=');
        fits.then_some(if shown { body } else { start }..end)
    }

    /// Whether any value around `start` could hold it: bytes around a value can
    /// make it longer, but not shorter.
    pub(super) fn may_be(&self, chunk: &[u8], start: usize) -> bool {
        let body = start + self.prefix.len();
        let end = short_run(chunk, body, self.min, |byte| self.body.has(byte));
        end - body >= self.min
    }
}

/// In the middle of every key of OpenAI before projects, and of most since:
/// its name in base64.
pub(super) const OPENAI: &str = "T3BlbkFJ";
/// Fewest letters on either side.
const OPENAI_SIDE: usize = 20;
/// Most letters before it that are looked at.
const OPENAI_BEFORE: usize = 128;

/// The key around the mark at `mark`.
pub(super) fn openai(value: &[u8], mark: usize) -> Option<Range<usize>> {
    let is = |byte| Class::Word.has(byte);
    let run_start = run_back(value, mark, OPENAI_BEFORE, is);
    let head = value.get(run_start..mark)?;
    let start = run_start + memchr::memmem::find(head, b"sk-")?;
    if mark - start < 3 + OPENAI_SIDE || !begins(value, start) {
        return None;
    }
    let behind = mark + OPENAI.len();
    let end = run(value, behind, is);
    (end - behind >= OPENAI_SIDE).then_some(start..end)
}

/// Client secrets of Entra: 40 letters, `Q~` the fifth and sixth of them behind
/// a digit.
pub(super) fn azure_client_secrets(value: &[u8], into: &mut Vec<Range<usize>>) {
    let is = |byte: u8| Class::Dotted.has(byte) || byte == b'~';
    let mut from = 0;
    for mark in memchr::memmem::find_iter(value, AZURE_CLIENT) {
        let Some(start) = mark.checked_sub(4).filter(|start| *start >= from) else {
            continue;
        };
        let end = short_run(value, start, 41, is);
        let alone = !is(before(value, start, 1)) && begins(value, start);
        if at(value, mark - 1).is_ascii_digit() && alone && (37..=40).contains(&(end - start)) {
            into.push(start..end);
            from = end;
        }
    }
}

/// What every such secret holds.
pub(super) const AZURE_CLIENT: &[u8] = b"Q~";

/// Whether a secret could be around the mark at `mark`.
pub(super) fn may_be_azure_client(chunk: &[u8], mark: usize) -> bool {
    let is = |byte: u8| Class::Dotted.has(byte) || byte == b'~';
    mark >= 4 && at(chunk, mark - 1).is_ascii_digit() && short_run(chunk, mark, 33, is) - mark == 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prefix_hides_another() {
        for (index, token) in TOKENS.iter().enumerate() {
            assert!(token.prefix.len() >= 4, "{}", token.prefix);
            for other in TOKENS.iter().skip(index + 1) {
                let (a, b) = (token.prefix, other.prefix);
                assert!(!a.starts_with(b) && !b.starts_with(a), "{a} {b}");
            }
        }
    }
}
