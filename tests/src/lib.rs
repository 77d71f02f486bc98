//! Real servers and clients for the tests, on private ports.
