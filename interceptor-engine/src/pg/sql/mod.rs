//! Statement text to [`interceptor_policy::operation::Sql`].
