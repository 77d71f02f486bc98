//! What each detector finds and what it leaves alone, by example.
//!
//! What has to be found stands between `«` and `»`. A `¦` is left out before a
//! text is scanned: it keeps scanners of source code from taking an example for
//! somebody's key.

use super::*;

struct Examples {
    detector: Detector,
    hits: &'static [&'static str],
    misses: &'static [&'static str],
}

const CORPUS: &[Examples] = &[
    Examples {
        detector: Detector::CreditCard,
        hits: &[
            "«4111111111111111»",
            "card: «4111 1111 1111 1111», thanks",
            r#"{"pan":"«5555-5555-5555-4444»","cvv":"123"}"#,
            "«3782 822463 10005» or «6011111111111117».",
            r"first line\n«4111111111111111»\nlast",
            "12,«4111111111111111»,2024-01-15",
        ],
        misses: &[
            "4111111111111112",
            "id 41111111111111110000000 of a batch",
            "0.4111111111111111",
            "1732428519123456",
            "2024-01-15 10:11:12.123456",
            "550e8400-e29b-4111-1111-111111111111",
            "41111111-1111-1111-1111-111111111111",
            "d4111111111111111e8f98b24",
            "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "10.1234567890123456",
        ],
    },
    Examples {
        detector: Detector::UsSsn,
        hits: &[
            "«123-45-6789»",
            "SSN: «123 45 6789».",
            r#"{"ssn":"«899-01-0001»"}"#,
            "«123-45-6789»,«234-56-7890»",
            "(«123-45-6789»)",
        ],
        misses: &[
            "000-12-3456",
            "666-12-3456",
            "900-12-3456",
            "123-00-6789",
            "123456789",
            "2024-01-15",
            "1-123-45-6789",
            "a123-45-6789",
            "123-45-67890",
        ],
    },
    Examples {
        detector: Detector::Iban,
        hits: &[
            "«GB82WEST12345698765432»",
            "IBAN «DE89 3704 0044 0532 0130 00», BIC COBADEFFXXX",
            r#"{"iban":"«NL91ABNA0417164300»"}"#,
            "«FR1420041010050500013M02606»",
            "to «NO9386011117947» and «MT84MALT011000012345MTLCAST001S».",
            "«CH93 0076 2011 6238 5295 7»",
        ],
        misses: &[
            "GB82WEST12345698765433",
            "GB82WEST1234569876543",
            "GB82WEST123456987654321",
            "XX82WEST12345698765432",
            "gb82west12345698765432",
            "DE89 3704 0044 0532 01300 0",
            "AB12CD34EF56AB12CD34EF56",
            "IN2024011512345678",
            "XGB82WEST12345698765432",
        ],
    },
    Examples {
        detector: Detector::Email,
        hits: &[
            "«alice@example.com»",
            "To: Alice <«alice.smith+tag@mail.example.com»>",
            r#"{"mail":"«o'neil@example.org»"}"#,
            "«jürgen@bücher.example»",
            "mailto:«x_1@sub-domain.example.museum».",
        ],
        misses: &[
            "@example.com",
            "alice@localhost",
            "git@github",
            "v@1.2.3",
            "@media screen { }",
            "a @ b.com",
            "npm i pkg@1.2.3",
        ],
    },
    Examples {
        detector: Detector::Phone,
        hits: &[
            "«+12125551234»",
            "«+1 (212) 555-1234» ext. 5",
            "tel:«+442079460958»",
            "«+49 (0)30 1234567», «+49 30/1234567»",
            "«+33 1 23 45 67 89»",
            "call «(212) 555-1234» or «212-555-1234».",
            "«212.555.1234»",
            "«1-212-555-1234»",
            "12,«212-555-1234»,2024-01-15",
            "«020 7946 0958»",
            "«(030) 1234567»",
            "«030/1234567»",
            "«0171-1234567»",
            "«01 23 45 67 89»",
            "«044 668 18 00»",
            "«03-1234-5678»",
            "at «212-555-1234» 2 times",
        ],
        misses: &[
            "2125551234",
            "12125551234",
            "0301234567",
            "2024-01-15",
            "2024-01-15 10:11:12",
            "2024-01-15T10:11:12+0100",
            "2024-01-15T10:11:12.123456+01:00",
            "15.01.2024 10:11",
            "01/02/2024",
            "01-02-2024 03-04-2024",
            "1.234.567.890",
            "10.234.567",
            "127.0.0.1",
            "550e8400-e29b-41d4-a716-446655440000",
            "12345678-0123-4567-8901-234567890123",
            "123-45-6789",
            "112-555-1234",
            "911-555-1234",
            "411-555-1234",
            "212-155-1234",
            "200 512 1234",
            "100 200 300",
            "+1 2 3 4 5 6 7 8 9",
            "1+234567890",
            "+1234567890123",
            "4111 1111 1111 1111",
            "v2.555.1234",
            "release-212-555-1234",
            "0.123456789",
            "01 02 03 04 05 06",
            "0x0171 123456",
            "978-3-16-148410-0",
            "GB82 WEST 1234 5698 7654 32",
        ],
    },
    Examples {
        detector: Detector::Ipv4,
        hits: &[
            "«10.0.0.1»",
            "from «192.168.1.17»:5432 to «203.0.113.9».",
            "http://«198.51.100.7»/path",
            r#"{"ip":"«172.16.0.254»"}"#,
            "host=«10.1.2.3» «8.8.8.8»,«1.1.1.1»",
            "«10.0.0.0»/8",
            "/«10.0.0.5»:8080",
        ],
        misses: &[
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "01.02.03.04",
            "v1.2.3.4",
            "version 1.2.3.4",
            "Version: 10.0.19041.1",
            "Chrome/120.0.0.0 Safari/537.36",
            "package-1.2.3.4.tar.gz",
            "lib_1.2.3.4",
            "1.2.3.4-beta",
            "12.50, 13.75",
            "127.0.0.1",
            "0.0.0.0",
            "255.255.255.0",
            "2024.01.15.10.11",
        ],
    },
    Examples {
        detector: Detector::Ipv6,
        hits: &[
            "«2001:db8::1»",
            "[«2001:db8:85a3::8a2e:370:7334»]:443",
            "«fe80::1»%eth0",
            "addr:«2001:db8::1», next",
            "«2001:0db8:85a3:0000:0000:8a2e:0370:7334».",
            "«::ffff:10.0.0.1»",
        ],
        misses: &[
            "::1",
            "::",
            "10:11:12",
            "2024-01-15T10:11:12",
            "00:1b:44:11:3a:b7",
            "std::vec::Vec",
            "a::b",
            "'x'::text",
            "now()::date",
            "Foo::Bar1",
            "feed::cafe",
            "1:2:3:4:5:6:7",
        ],
    },
    Examples {
        detector: Detector::Jwt,
        hits: &[
            "«eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl»",
            "Bearer «eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl»",
            "token=«eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.»",
            "jwt_«eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl»",
            r#""«eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln»""#,
        ],
        misses: &[
            "eyJ0eXAiOiJKV1QifQ.eyJzdWIiOiIxIn0.c2ln",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0",
            "eyJhbGciOiJIUzI1NiJ9",
            "eyJ.eyJ.eyJ",
            "eyJhbGci!.a.b",
            "aGVsbG8.d29ybGQ.IQ",
        ],
    },
    Examples {
        detector: Detector::BearerToken,
        hits: &[
            "Authorization: Bearer «mF_9.B5f-4.1JqM-abc»",
            "authorization: bearer «0123456789abcdef0123»",
            "-H 'Authorization: Bearer «abcDEF123456ghiJKL==»'",
            "AUTHORIZATION=BEARER «abcdefghijkl1234567890»",
            "Bearer%20«abcdefghijkl1234567890»",
            "Authorization: Basic «YWxpY2U6aHVudGVyMg==»",
        ],
        misses: &[
            "Bearer authentication is required",
            "the bearer of this letter",
            "bearer tokens2",
            "Bearer ",
            "Basic authentication",
            "Basic understanding of it",
        ],
    },
    Examples {
        detector: Detector::AwsKey,
        hits: &[
            "«AKIA¦IOSFODNN7EXAMPLE»",
            "id=«ASIA¦IOSFODNN7EXAMPLE»,",
            "aws_secret_access_key = «wJalrXUtnFEMI/K7MDENG/bPxRfiCY¦EXAMPLEKEY»",
            r#""SecretAccessKey": "«wJalrXUtnFEMI/K7MDENG/bPxRfiCY¦EXAMPLEKEY»""#,
            "- name: AWS_SECRET_ACCESS_KEY\n  value: «wJalrXUtnFEMI/K7MDENG/bPxRfiCY¦EXAMPLEKEY»",
            "%3D«AKIA¦IOSFODNN7EXAMPLE»",
        ],
        misses: &[
            "AKIA¦IOSFODNN7EXAMPL",
            "AKIA¦IOSFODNN7EXAMPLES",
            "XAKIA¦IOSFODNN7EXAMPLE",
            "akiaiosfodnn7example",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCY¦EXAMPLEKEY",
            "secret wJalrXUtnFEMI/K7MDENG/bPxRfiCY¦EXAMPLEKEYx",
            "secret word word word word word word word word word wo wJalrXUtnFEMI/K7MDENG/bPxRfiCY¦EXAMPLEKEY",
        ],
    },
    Examples {
        detector: Detector::GcpKey,
        hits: &[
            "key=«AIza¦SyA-1234567890abcdefghijklmnopqrstu»",
            r#"{"apiKey":"«AIza¦SyA-1234567890abcdefghijklmnopqrstu»"}"#,
            "«GOCSPX-¦1234567890abcdefghijklmnopqr»",
            "access_token=«ya29.¦a0AfH6SMBx1234567890abcdefghij_k-l»",
            "Bearer «ya29.¦a0AfH6SMBx1234567890abcdefghij_k-l».",
        ],
        misses: &[
            "AIza¦SyA-1234567890abcdefghijklmnopqrst",
            "AIza¦SyA-1234567890abcdefghijklmnopqrstuv",
            "xAIza¦SyA-1234567890abcdefghijklmnopqrstu",
            "GOCSPX-your-client-secret-goes-here",
            "ya29.short1",
        ],
    },
    Examples {
        detector: Detector::AzureKey,
        hits: &[
            "AccountName=x;AccountKey=«abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/abcdefghijklmnopqrstuv==»;EndpointSuffix=core.windows.net",
            "SharedAccessKeyName=root;SharedAccessKey=«abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG=»",
            "client_secret=«abc8Q¦~defghijklmnopqrstuvwxyz0123456789A»",
            r#"{"secret":"«Zy07Q¦~Ab.cdefghijklmn-pqrstuvw_yz0123456»"}"#,
            "'«abc8Q¦~defghijklmnopqrstuvwxyz0123456789A»'",
        ],
        misses: &[
            "AccountKey=abc",
            "AccountKey=<your-account-key>",
            "SharedAccessKey=none",
            "abc8Q~short",
            "abcxQ~defghijklmnopqrstuvwxyz0123456789AB",
            "Q~",
        ],
    },
    Examples {
        detector: Detector::GithubToken,
        hits: &[
            "«ghp_¦abcdefghijklmnopqrstuvwxyz0123456789»",
            "https://x:«gho_¦abcdefghijklmnopqrstuvwxyz0123456789»@github.com/o/r",
            "GITHUB_TOKEN=«ghs_¦abcdefghijklmnopqrstuvwxyz0123456789»",
            "«ghu_¦abcdefghijklmnopqrstuvwxyz0123456789», «ghr_¦abcdefghijklmnopqrstuvwxyz0123456789»",
            "«github_pat_¦11ABCDEFG0abcdefghijkl_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456»",
        ],
        misses: &[
            "ghp_abc",
            "ghp_your_token_here_your_token_here_your_token",
            "ghx_abcdefghijklmnopqrstuvwxyz0123456789",
            "xghp_abcdefghijklmnopqrstuvwxyz0123456789",
            "github_pat_short1",
        ],
    },
    Examples {
        detector: Detector::GitlabToken,
        hits: &[
            "«glpat-¦abcdefghij0123456789»",
            "PRIVATE-TOKEN: «glpat-¦AbC_-fghij0123456789»",
            "«glrt-¦abcdefghij0123456789», «gldt-¦abcdefghij0123456789»",
            "CI_JOB_TOKEN=«glcbt-¦64_abcdefghij0123456789»",
            "«glpat-¦abcdefghij0123456789abcdef.01.0z0abcdef».",
        ],
        misses: &[
            "glpat-short1",
            "glpat-your-token-goes-right-here",
            "xglpat-abcdefghij0123456789",
            "glxx-abcdefghij0123456789",
            "gl-pat-abcdefghij0123456789",
        ],
    },
    Examples {
        detector: Detector::SlackToken,
        hits: &[
            "«xoxb-¦123456789012-123456789012-abcdefghijklmnopqrstuvwx»",
            "SLACK=«xoxp-¦123456789012-123456789012-123456789012-abcdef»",
            "«xapp-¦1-A0123456789-1234567890123-abcdef0123456789»",
            "https://«hooks.slack.com/services/¦T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX»",
            "\"«xoxe.xox¦p-1-Mi0yLTEyMzQ1Njc4OTAxMi0»\"",
        ],
        misses: &[
            "xoxb-your-token-here",
            "xoxb-not-a-real-token-in-this-text",
            "xoxz-123456789012-123456789012",
            "axoxb-123456789012-123456789012-abcdef",
            "hooks.slack.com/services/T0/B0",
        ],
    },
    Examples {
        detector: Detector::StripeKey,
        hits: &[
            "«sk_live_¦abcdefghij0123456789abcd»",
            "STRIPE_KEY=«sk_test_¦abcdefghij0123456789abcd»",
            "\"«rk_live_¦abcdefghij0123456789abcd»\"",
            "«rk_test_¦abcdefghij0123456789abcd»;",
            "«whsec_¦abcdefghij0123456789abcdefghij01»",
        ],
        misses: &[
            "pk_live_¦abcdefghij0123456789abcd",
            "sk_live_",
            "sk_live_short1",
            "task_live_abcdefghij0123456789abcd",
            "sk_prod_abcdefghij0123456789abcd",
            "risk_test_result_0123456789",
        ],
    },
    Examples {
        detector: Detector::OpenaiKey,
        hits: &[
            "«sk-¦abcdefghij0123456789T3Blbk¦FJabcdefghij0123456789»",
            "OPENAI_API_KEY=«sk-proj-¦abcdefghij0123456789_-abcdefghij0123456789ab»",
            "\"«sk-svcacct-¦abcdefghij0123456789abcdefghij0123456789ab»\"",
            "«sk-admin-¦abcdefghij0123456789abcdefghij0123456789ab»",
            "key: «sk-proj-¦abcdefghij0123456789T3Blbk¦FJabcdefghij0123456789»",
        ],
        misses: &[
            "sk-proj-your-key",
            "sk-abc",
            "task-project-abcdefghij0123456789abcdefghij0123456789ab",
            "T3Blbk¦FJ",
            "disk-proj-abcdefghij0123456789abcdefghij0123456789ab",
            "sk-ant-abcdefghij0123456789abcdefghij0123456789",
        ],
    },
    Examples {
        detector: Detector::AnthropicKey,
        hits: &[
            "«sk-ant-¦api03-abcdefghij0123456789abcdefghij0123456789-AA»",
            "ANTHROPIC_API_KEY=«sk-ant-¦admin01-abcdefghij0123456789abcdefghij»",
            "\"«sk-ant-¦oat01-abcdefghij0123456789abcdefghij»\"",
            "x-api-key: «sk-ant-¦sid01-abcdefghij0123456789abcdefghij»",
            r"key\n«sk-ant-¦api03-abcdefghij0123456789abcdefghij0123456789-AA»\n",
        ],
        misses: &[
            "sk-ant-short1",
            "sk-ant-your-key-goes-right-here-and-now",
            "desk-ant-api03-abcdefghij0123456789abcdefghij",
            "sk-antique-furniture",
            "sk_ant_abcdefghij0123456789abcdefghij0123456789",
        ],
    },
    Examples {
        detector: Detector::PrivateKey,
        hits: &[
            "«-----BEGIN PRIVATE¦ KEY-----\nMIIB\n-----END PRIVATE¦ KEY-----»",
            "key:\n«-----BEGIN RSA PRIVATE¦ KEY-----\nMIIB\n-----END RSA PRIVATE¦ KEY-----»\nend",
            r#"{"private_key":"«-----BEGIN PRIVATE¦ KEY-----\nMIIB\n-----END PRIVATE¦ KEY-----»\n"}"#,
            "«-----BEGIN OPENSSH PRIVATE¦ KEY-----\nb3Bl\n-----END OPENSSH PRIVATE¦ KEY-----»",
            "«-----BEGIN PRIVATE¦ KEY-----\nMIIB cut off»",
        ],
        misses: &[
            "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "BEGIN PRIVATE KEY",
            "---BEGIN PRIVATE KEY---",
            "the PRIVATE KEY is elsewhere",
        ],
    },
    Examples {
        detector: Detector::UrlPassword,
        hits: &[
            "postgres://app:«hunter2»@db.internal:5432/app",
            "DATABASE_URL=\"mysql://root:«p%40ss»@localhost/db\"",
            "redis://:«secret»@cache:6379",
            "https://user:«x-oauth»@github.com/o/r.git and more",
            "amqp://u:«p@ss:word»@mq",
        ],
        misses: &[
            "https://example.com/path",
            "https://user@example.com",
            "https://example.com:8080/a@b",
            "https://example.com/?mail=a:b@c.de",
            "postgres://app:$PASSWORD@db",
            "postgres://app:****@db",
            "postgres://app:@db",
            "see http://a.b : c@d",
        ],
    },
    Examples {
        detector: Detector::KeyValuePassword,
        hits: &[
            "password=«hunter2»",
            "host=db password='«it is»' x",
            r#"{"user":"a","password":"«hunter \"2\"»"}"#,
            "password: «hunter2»",
            "  password: «correcthorse»\n  user: x",
            "PGPASSWORD=«s3cret» psql",
            "Server=x;Uid=y;Pwd=«hunter2»;",
            "ALTER ROLE x PASSWORD '«hunter2»'",
            "mysql --password «hunter2» -u x",
            "?user=a&password=«b»&x=1",
            r#"{\"password\":\"«hunter2»\"}"#,
            "db_passwd => «hunter2»",
            "password_hash=«$2b$12$abcdefghijklmnopqrstuv»",
        ],
        misses: &[
            "password: must be at least eight characters",
            "Password: required",
            "password=",
            "password=$PASSWORD",
            "password=${DB_PASSWORD}",
            "password=%s",
            "password=****",
            "password = null",
            r#"{"password":null}"#,
            r#"{"password":""}"#,
            "password == other",
            "password_reset_at: 2024-01-15",
            "passwordPolicy=strict",
            "PWD=/home/agent",
            "your password is wrong",
            "password=<password>",
            "password=[redacted]",
        ],
    },
    Examples {
        detector: Detector::HighEntropySecret,
        hits: &[
            "api_key=«9aF3kLm0Qz7Xv2Bn5Tc8»",
            r#"{"token":"«d41d8cd98f00b204e9800998ecf8427e»"}"#,
            "X-Api-Key: «k3j9x7q2m5v8b1n4c6z0l2»",
            "client_secret: «Zx9+Kq/3mNp7Rt2Vw5Yb8Cd1Fg4Hj6Kl0M==»",
            "- name: DEPLOY_TOKEN\n  value: «9aF3kLm0Qz7Xv2Bn5Tc8»",
            "credentials = «AbC-dEf_123GhI-456jKl_789»",
        ],
        misses: &[
            "9aF3kLm0Qz7Xv2Bn5Tc8",
            "commit d41d8cd98f00b204e9800998ecf8427e",
            "token: 550e8400-e29b-41d4-a716-446655440000",
            "secret: projects/123456/MySecret/versions/1",
            "api_key=your_api_key_goes_here_1",
            "tokenExpirationPolicyVersion2Enabled=true",
            "token count 12345678901234567890123",
            "secret=changeme",
            "secrets/deploy-prod-eu-west-1-blue-2024",
        ],
    },
];

/// The text, and the ranges that have to be found in it.
fn read(example: &str) -> (String, Vec<Range<usize>>) {
    let mut text = String::new();
    let mut ranges = Vec::new();
    let mut start = 0;
    for c in example.chars() {
        match c {
            '«' => start = text.len(),
            '»' => ranges.push(start..text.len()),
            '¦' => {}
            c => text.push(c),
        }
    }
    (text, ranges)
}

fn plan(detectors: impl IntoIterator<Item = Detector>) -> DetectPlan {
    let mut plan = DetectPlan::default();
    for detector in detectors {
        plan.add(detector, &Transform::Redact);
    }
    plan
}

fn everything() -> DetectPlan {
    plan(Detector::NAMES.iter().map(|(_, detector)| *detector))
}

/// Every text of the corpus.
pub(super) fn texts() -> Vec<String> {
    CORPUS
        .iter()
        .flat_map(|examples| examples.hits.iter().chain(examples.misses))
        .map(|example| read(example).0)
        .collect()
}

#[test]
fn every_detector_has_examples_of_what_it_finds_and_what_it_leaves_alone() {
    for (name, detector) in Detector::NAMES {
        let examples: Vec<_> = CORPUS.iter().filter(|e| e.detector == *detector).collect();
        let [examples] = examples.as_slice() else {
            panic!("{name} has {} tables of examples", examples.len());
        };
        assert!(
            examples.hits.len() >= 5 && examples.misses.len() >= 5,
            "{name}"
        );
    }
}

#[test]
fn what_looks_like_it_is_found_and_nothing_beside_it() {
    let mut wrong = Vec::new();
    for examples in CORPUS {
        let plan = plan([examples.detector]);
        for example in examples.hits.iter().chain(examples.misses) {
            let (text, expected) = read(example);
            let got: Vec<_> = plan
                .scan(text.as_bytes())
                .into_iter()
                .map(|hit| hit.range)
                .collect();
            if got != expected {
                wrong.push(format!(
                    "{}: {example}: {got:?}, not {expected:?}",
                    examples.detector.name()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_found_is_seen_in_any_chunk_around_it() {
    for examples in CORPUS {
        let plan = plan([examples.detector]);
        for example in examples.hits {
            let (text, _) = read(example);
            for (before, after) in [
                ("", ""),
                ("A", "A"),
                ("0", "0"),
                ("\0\0\0\x30", "D\0\0\0\x31"),
                ("-", "_"),
            ] {
                let chunk = format!("{before}{text}{after}");
                assert!(plan.may_hit(chunk.as_bytes()), "{example} in {chunk:?}");
            }
        }
    }
}

#[test]
fn everyday_text_has_no_hit_of_any_kind() {
    let plan = everything();
    for text in [
        "2024-01-15T10:11:12.123456Z  INFO orders::worker: request finished method=GET path=/v1/orders/48213 status=200 elapsed_ms=12.7 bytes=5132 trace=4bf92f3577b34da6a3ce929d0e0e4736",
        r#"{"id":48213,"version":"1.27.3","total":608.80,"at":"2024-01-15T10:11:12+01:00","request":"7f3c1d0e-52a4-4b7e-9f61-0c2d8a5be913","sha":"da39a3ee5e6b4b0d3255bfef95601890afd80709"}"#,
        "SELECT id::text, sum(amount) FROM public.orders WHERE created_at > now() - interval '7 days' GROUP BY 1",
        "use std::collections::HashMap; let x: u64 = 0xdead_beef; // see a::b::C",
        "GET /search?q=chair&page=2 HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Chrome/120.0.0.0 Safari/537.36\r\n",
        "-rw-r--r-- 1 root root 1048576 Jan 15 10:11 core.12345",
        "-- \n diff --git a/x b/x\n@@ -1,7 +1,7 @@\n-old\n+new\nindex e69de29bb2d1..d00491fd7e5b 100644",
        "PATH=/usr/bin PWD=/root SHELL=/bin/bash LANG=C.UTF-8 HOME=/root",
        "1 | 2024-01-15 | 12.50 | 1,234,567.89 | 100 200 300 | 00:1b:44:11:3a:b7 | 127.0.0.1",
        "token_type password_changed_at secret_id api_key_id access_key_last_used",
    ] {
        let hits = plan.scan(text.as_bytes());
        assert!(hits.is_empty(), "{text}: {hits:?}");
    }
}

#[test]
fn a_run_of_anything_that_begins_a_hit_takes_time_in_proportion() {
    let plan = everything();
    let seeds = [
        "1",
        "0",
        "1 ",
        "12 ",
        "123-",
        "+1",
        "+",
        "(",
        "(1",
        "(212) ",
        "@",
        "a@",
        "a@b.",
        "a.b@",
        ".",
        "1.",
        "1.1.1.",
        ":",
        "::",
        "a:",
        "1:",
        "a::",
        "://",
        "x://a:b",
        "x://a:b@",
        "GB82",
        "GB82 ",
        "GB82WEST1234",
        "eyJh",
        "eyJh.",
        "eyJhbGciOiJIUzI1NiJ9.",
        "AKIA",
        "AIza",
        "Q~",
        "8Q~",
        "abc8Q~",
        "-----BEGIN PRIVATE KEY-----",
        "VATE KEY",
        "-----BEGIN ",
        "ghp_",
        "glpat-",
        "xoxb-",
        "sk-ant-",
        "sk-",
        "T3BlbkFJ",
        "sk-T3BlbkFJ",
        "secret",
        "secret=",
        "secret9aF3kLm0Qz7Xv2Bn5Tc8",
        "password",
        "password=",
        "password:",
        "password='",
        "password={{",
        "password=%",
        "password=\\\"\\",
        "--password ",
        "token",
        "bearer ",
        "Bearer%20",
        "Basic ",
        "Basic YWxp",
        "api_key\n",
        "\\",
        "%3D",
        "AccountKey=",
        "ya29.",
        "hooks.slack.com/services/",
    ];
    for seed in seeds {
        let text = seed.repeat((1 << 17) / seed.len());
        // Quadratic, each of these would take minutes.
        let _ = plan.scan(text.as_bytes());
        let _ = plan.may_hit(text.as_bytes());
    }
}
