//! Which protocol the first bytes of a flow speak.
