//! Well-formed messages, made of random fields by code that shares nothing with
//! the readers and writers under test.

use proptest::{collection::vec, option, prelude::*};

use super::tag;

/// A message under construction.
#[derive(Clone, Debug)]
pub(super) struct Made(pub(super) Vec<u8>);

impl Made {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn text(self, string: &[u8]) -> Self {
        self.raw(string).raw(&[0])
    }

    pub(super) fn count(self, count: usize) -> Self {
        self.raw(&(count as u16).to_be_bytes())
    }

    pub(super) fn shorts(self, shorts: &[i16]) -> Self {
        let made = self.count(shorts.len());
        shorts.iter().fold(made, |m, s| m.raw(&s.to_be_bytes()))
    }

    pub(super) fn value(self, value: Option<&[u8]>) -> Self {
        match value {
            None => self.raw(&[0xff; 4]),
            Some(v) => self.raw(&(v.len() as u32).to_be_bytes()).raw(v),
        }
    }

    pub(super) fn values(self, values: &[Option<Vec<u8>>]) -> Self {
        let made = self.count(values.len());
        values.iter().fold(made, |m, v| m.value(v.as_deref()))
    }

    pub(super) fn frame(self, tag: u8) -> Vec<u8> {
        let length = (self.0.len() as u32 + 4).to_be_bytes();
        [&[tag], &length[..], &self.0].concat()
    }
}

/// Any string that can be sent; few of them are UTF-8.
pub(super) fn text() -> impl Strategy<Value = Vec<u8>> {
    vec(1u8..=255, 0..40)
}

pub(super) fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..60)
}

pub(super) fn values() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    vec(option::of(bytes()), 0..12)
}

pub(super) fn shorts() -> impl Strategy<Value = Vec<i16>> {
    vec(any::<i16>(), 0..5)
}

/// Any well-formed message of the client.
pub(super) fn sent() -> impl Strategy<Value = Vec<u8>> {
    use tag::frontend as t;
    let subject = || {
        (prop_oneof![Just(b'S'), Just(b'P')], text())
            .prop_map(|(kind, name)| Made::new().raw(&[kind]).text(&name))
    };
    prop_oneof![
        text().prop_map(|sql| Made::new().text(&sql).frame(t::QUERY)),
        (text(), text(), vec(any::<u32>(), 0..9)).prop_map(|(name, sql, types)| {
            let made = Made::new().text(&name).text(&sql).count(types.len());
            let made = types.iter().fold(made, |m, oid| m.raw(&oid.to_be_bytes()));
            made.frame(t::PARSE)
        }),
        (text(), text(), shorts(), values(), shorts()).prop_map(|(portal, name, f, v, r)| {
            let made = Made::new().text(&portal).text(&name);
            made.shorts(&f).values(&v).shorts(&r).frame(t::BIND)
        }),
        subject().prop_map(|made| made.frame(t::DESCRIBE)),
        subject().prop_map(|made| made.frame(t::CLOSE)),
        (text(), any::<i32>()).prop_map(|(portal, rows)| {
            Made::new()
                .text(&portal)
                .raw(&rows.to_be_bytes())
                .frame(t::EXECUTE)
        }),
        (any::<u32>(), shorts(), values(), any::<i16>()).prop_map(|(oid, f, v, r)| {
            let made = Made::new().raw(&oid.to_be_bytes()).shorts(&f).values(&v);
            made.raw(&r.to_be_bytes()).frame(t::FUNCTION_CALL)
        }),
        bytes().prop_map(|data| Made(data).frame(t::COPY_DATA)),
        bytes().prop_map(|data| Made(data).frame(t::PASSWORD)),
        text().prop_map(|password| Made::new().text(&password).frame(t::PASSWORD)),
        (text(), option::of(bytes())).prop_map(|(mechanism, data)| {
            Made::new()
                .text(&mechanism)
                .value(data.as_deref())
                .frame(t::PASSWORD)
        }),
        text().prop_map(|reason| Made::new().text(&reason).frame(t::COPY_FAIL)),
        prop_oneof![
            Just(t::FLUSH),
            Just(t::SYNC),
            Just(t::TERMINATE),
            Just(t::COPY_DONE)
        ]
        .prop_map(|tag| Made::new().frame(tag)),
    ]
}

/// Any well-formed message of the server.
pub(super) fn answered() -> impl Strategy<Value = Vec<u8>> {
    use tag::backend as t;
    let name = || vec(1u8..=255, 1..20);
    let field = (text(), vec(any::<u8>(), 18..=18))
        .prop_map(|(name, rest)| Made::new().text(&name).raw(&rest).0);
    let notice = vec((1u8..=255, text()), 0..6).prop_map(|fields| {
        let made = fields
            .iter()
            .fold(Made::new(), |m, (c, v)| m.raw(&[*c]).text(v));
        made.raw(&[0])
    });
    let copy = (any::<u8>(), shorts()).prop_map(|(f, c)| Made::new().raw(&[f]).shorts(&c));
    let authentication = prop_oneof![
        prop_oneof![Just(0u32), Just(2), Just(3), Just(7), Just(9)]
            .prop_map(|code| Made(code.to_be_bytes().to_vec())),
        any::<[u8; 4]>().prop_map(|salt| Made(5u32.to_be_bytes().to_vec()).raw(&salt)),
        (
            prop_oneof![Just(8u32), Just(11), Just(12), 13u32..],
            bytes()
        )
            .prop_map(|(code, data)| Made(code.to_be_bytes().to_vec()).raw(&data)),
        vec(name(), 0..4).prop_map(|names| {
            let made = Made(10u32.to_be_bytes().to_vec());
            names.iter().fold(made, |m, n| m.text(n)).raw(&[0])
        }),
    ];
    prop_oneof![
        authentication.prop_map(|made| made.frame(t::AUTHENTICATION)),
        vec(any::<u8>(), 8..=260).prop_map(|key| Made(key).frame(t::BACKEND_KEY_DATA)),
        (text(), text())
            .prop_map(|(n, v)| Made::new().text(&n).text(&v).frame(t::PARAMETER_STATUS)),
        prop_oneof![Just(b'I'), Just(b'T'), Just(b'E')]
            .prop_map(|status| Made(vec![status]).frame(t::READY_FOR_QUERY)),
        vec(field, 0..6).prop_map(|fields| {
            Made::new()
                .count(fields.len())
                .raw(&fields.concat())
                .frame(t::ROW_DESCRIPTION)
        }),
        values().prop_map(|columns| Made::new().values(&columns).frame(t::DATA_ROW)),
        text().prop_map(|tag| Made::new().text(&tag).frame(t::COMMAND_COMPLETE)),
        vec(any::<[u8; 4]>(), 0..6).prop_map(|types| {
            Made::new()
                .count(types.len())
                .raw(&types.concat())
                .frame(t::PARAMETER_DESCRIPTION)
        }),
        (
            copy,
            prop_oneof![
                Just(t::COPY_IN_RESPONSE),
                Just(t::COPY_OUT_RESPONSE),
                Just(t::COPY_BOTH_RESPONSE)
            ]
        )
            .prop_map(|(made, tag)| made.frame(tag)),
        bytes().prop_map(|data| Made(data).frame(t::COPY_DATA)),
        (
            notice,
            prop_oneof![Just(t::ERROR_RESPONSE), Just(t::NOTICE_RESPONSE)]
        )
            .prop_map(|(made, tag)| made.frame(tag)),
        (any::<[u8; 4]>(), text(), text()).prop_map(|(pid, channel, payload)| {
            Made::new()
                .raw(&pid)
                .text(&channel)
                .text(&payload)
                .frame(t::NOTIFICATION_RESPONSE)
        }),
        option::of(bytes()).prop_map(|v| Made::new()
            .value(v.as_deref())
            .frame(t::FUNCTION_CALL_RESPONSE)),
        (any::<[u8; 4]>(), vec(text(), 0..4)).prop_map(|(version, names)| {
            let made = Made::new()
                .raw(&version)
                .raw(&(names.len() as u32).to_be_bytes());
            names
                .iter()
                .fold(made, |m, n| m.text(n))
                .frame(t::NEGOTIATE_PROTOCOL_VERSION)
        }),
        prop_oneof![
            Just(t::EMPTY_QUERY_RESPONSE),
            Just(t::PORTAL_SUSPENDED),
            Just(t::NO_DATA),
            Just(t::PARSE_COMPLETE),
            Just(t::BIND_COMPLETE),
            Just(t::CLOSE_COMPLETE),
            Just(t::COPY_DONE)
        ]
        .prop_map(|tag| Made::new().frame(tag)),
    ]
}
